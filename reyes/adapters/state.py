"""What a follower remembers between runs: files that are whole or not there.

lock            held while a run may change anything; the number of its process meanwhile
state.json      what was accepted, what was applied
last-good.gpg   the signed object that was accepted last
previous.json   the rules before the last commit that changed them
trial.json      the rules before those that have not proved healthy yet
held.json       the rules that stay, after a rollback or instead of blamed ones
settled.json    what the kernel showed after the last good run
status.json     what the last run left behind, for everybody to read
"""

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from reyes.adapters.files import (
    check_private,
    make_private_directory,
    move_file,
    remove_file,
    remove_leftovers,
    write_atomically,
)
from reyes.envelope import MAX_ENVELOPE_BYTES
from reyes.errors import ConfigError, SourceError
from reyes.netfilter.live import Generation
from reyes.netfilter.settled import Settled
from reyes.ruleset import UNREADABLE
from reyes.state import Identity, KeptGeneration, State
from reyes.status import Status

LAST_GOOD = "last-good.gpg"

WAY_OUT_SECONDS = 15
"""So much longer than a pass may wait for its store a way out waits for the pass."""

_HOLDER = re.compile(rb"([1-9][0-9]{0,9})\n")

_OR_END_IT = ", or end that process: rules that are still on trial are taken back then"
"""The dead man's switch does that, and holds the lock until it has."""

_LOOK_SECONDS = 0.1

Decoded = TypeVar("Decoded")

log = logging.getLogger(__name__)


class StateDirectory:
    """A follower's state directory; a `read_only` one sets not even a corrupt file aside."""

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self._directory = directory
        self._read_only = read_only
        self._lock = directory / "lock"
        self._state = directory / "state.json"
        self._last_good = directory / LAST_GOOD
        self._settled = directory / "settled.json"
        self._status = directory / "status.json"

    def as_read_only(self) -> "StateDirectory":
        """Return the same directory for somebody who changes nothing in it."""
        return StateDirectory(self._directory, read_only=True)

    @contextmanager
    def lock(self, patience: float = 0) -> Iterator[None]:
        """Keep every other run of this host out; wait for one for so many seconds at most.

        Raises:
            ConfigError: the directory cannot be made, or others could change it.
            SourceError: another run is at work.
        """
        try:
            self._make()
            descriptor = _open(self._lock)
        except OSError as error:
            raise ConfigError(
                f"cannot use the state directory {self._directory}: {error.strerror}",
                "run it as root, or make that directory, which follower.state_directory names, for"
                " the user who runs the follower",
            ) from error
        try:
            self._wait_for_lock(descriptor, patience)
            _write_holder(descriptor, b"%d\n" % os.getpid())
            remove_leftovers(self._directory)
            try:
                yield
            finally:
                _write_holder(descriptor, b"")
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """Return the process of the run that holds the lock, if there is one."""
        with suppress(OSError), self._lock.open("rb") as file:
            return _read_holder(file.fileno())
        return None

    def load(self) -> State:
        """Read what is remembered; a fresh state if there is none.

        Raises:
            ConfigError: the file cannot be read, or is corrupt: it is set aside, and the next
                run starts afresh, with what `last_good` tells of what was accepted.
        """
        return self._decode(self._state, State) or State()

    def save(self, state: State) -> None:
        """Remember a state."""
        self._write(self._state, msgspec.json.encode(state))

    def remember_identity(self, identity: Identity) -> None:
        """Remember who this host is, for the time before its network is up."""
        state = self.load()
        if state.identity != identity:
            self.save(replace(state, identity=identity))

    def last_good(self) -> bytes | None:
        """Return the signed object that was accepted last, as it was then, or None."""
        blob = self._read(self._last_good)
        return blob if blob and len(blob) <= MAX_ENVELOPE_BYTES else None

    def keep(self, blob: bytes) -> None:
        """Keep a signed object as the last good one."""
        self._write(self._last_good, blob)

    def generation(self, which: KeptGeneration) -> Generation | None:
        """Return a generation, if it is kept."""
        return self._decode(self._file_of(which), Generation)

    def keep_generation(self, which: KeptGeneration, generation: Generation) -> None:
        """Keep a generation, with the members of its sets."""
        self._write(self._file_of(which), msgspec.json.encode(generation))

    def end_trial(self, *, proved: bool) -> None:
        """Forget that rules are on trial; those before `proved` ones are the generation before."""
        trial = self._file_of("trial")
        self._refuse_if_read_only(trial)
        if proved:
            move_file(trial, self._file_of("previous"))
        else:
            remove_file(trial)

    def settled(self) -> Settled | None:
        """Return what the kernel showed after the last good run; None if that is not known."""
        text = self._read(self._settled)
        try:
            return None if text is None else msgspec.json.decode(text, type=Settled)
        except UNREADABLE:
            return None

    def keep_settled(self, settled: Settled) -> None:
        """Keep what the kernel shows after a good run."""
        text = msgspec.json.encode(settled)
        if text != self._read(self._settled):
            self._write(self._settled, text, durable=False)

    def status(self) -> Status | None:
        """Return what the last run left behind; None if there is nothing that can be understood.

        Raises:
            ConfigError: this user may not read it.
        """
        try:
            return msgspec.json.decode(self._status.read_bytes(), type=Status)
        except (FileNotFoundError, *UNREADABLE):
            return None
        except OSError as error:
            raise ConfigError(
                f"cannot read {self._status}: {error.strerror}",
                f"its directory should have mode 0755: chmod 0755 {self._directory}",
            ) from error

    def save_status(self, status: Status) -> None:
        """Leave a status behind, in a directory that is made if need be.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            self._make()
        except OSError as error:
            raise ConfigError(f"cannot make {self._directory}: {error.strerror}") from error
        self._write(self._status, msgspec.json.encode(status), 0o644, durable=False)

    def _wait_for_lock(self, descriptor: int, patience: float) -> None:
        end = time.monotonic() + patience
        is_told = False
        while not _try_to_lock(descriptor):
            holder = _read_holder(descriptor)
            process = f" (process {holder})" if holder else ""
            held = f"another follower run{process} holds {self._lock}"
            hint = f"wait for it to end{_OR_END_IT if holder else ''}"
            if time.monotonic() >= end:
                raise SourceError(held, hint)
            if not is_told:
                log.warning("%s: trying for %.0f s (%s)", held, patience, hint)
                is_told = True
            time.sleep(_LOOK_SECONDS)

    def _file_of(self, which: KeptGeneration) -> Path:
        return self._directory / f"{which}.json"

    def _make(self) -> None:
        if make_private_directory(self._directory):
            # Whatever the umask is: everybody may read the status, and each secret has mode 0600.
            self._directory.chmod(0o755)

    def _decode(self, path: Path, kind: type[Decoded]) -> Decoded | None:
        text = self._read(path)
        try:
            return None if text is None else msgspec.json.decode(text, type=kind)
        except UNREADABLE as error:
            if self._read_only:
                raise ConfigError(
                    f"{path} is corrupt: {error}", "the next run of the follower sets it aside"
                ) from error
            raise _set_aside(path, error) from error

    def _write(self, path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
        self._refuse_if_read_only(path)
        write_atomically(path, data, mode, durable=durable)

    def _refuse_if_read_only(self, path: Path) -> None:
        if self._read_only:
            raise AssertionError(f"{path} was opened to be read only")

    def _read(self, path: Path) -> bytes | None:
        if not os.path.lexists(path):
            return None
        check_private(path)
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _open(path: Path) -> int:
    """Open a file to be locked; on a disk that has become read-only one can still repair rules."""
    try:
        return os.open(path, os.O_NOFOLLOW | os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_NOFOLLOW | os.O_RDONLY)


def _try_to_lock(descriptor: int) -> bool:
    """Take the lock unless somebody has it; tell whether it is taken now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(descriptor: int, text: bytes) -> None:
    """Write into the lock who holds it; a disk that takes nothing keeps nobody from holding it."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)


def _read_holder(descriptor: int) -> int | None:
    """Return the process that holds the lock, if it has said so; one that was killed does not."""
    with suppress(OSError):
        # One byte more than there may be, so that nothing longer passes for it.
        said = _HOLDER.fullmatch(os.pread(descriptor, 12, 0))
        if said and _has_open(int(said[1]), descriptor):
            return int(said[1])
    return None


def _has_open(process: int, descriptor: int) -> bool:
    """Tell whether a process has our file open."""
    wanted = os.fstat(descriptor)
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):  # it has just been closed
            if os.path.samestat(entry.stat(), wanted):
                return True
    return False


def _set_aside(path: Path, why: Exception) -> ConfigError:
    """Move a corrupt file out of the way, so that only one run fails for it."""
    aside = path.with_suffix(".corrupt")
    try:
        path.rename(aside)
    except OSError as error:
        return ConfigError(
            f"{path} is corrupt and cannot be set aside: {error.strerror}", "remove it by hand"
        )
    return ConfigError(
        f"{path} is corrupt: {why}", f"it is kept as {aside}; the next run starts without it"
    )
