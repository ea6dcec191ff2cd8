"""What a follower remembers between runs: files that are whole or not there.

lock            held while a run may change anything
state.json      what was accepted, what was applied
last-good.gpg   the signed object that was accepted last
previous.json   the rules before the last commit that changed them
held.json       the rules that a rollback brought back
settled.json    what the kernel showed after the last good run
status.json     what the last run left behind, for everybody to read
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from reyes.adapters.files import check_private, make_private_directory, write_atomically
from reyes.envelope import MAX_ENVELOPE_BYTES
from reyes.errors import ConfigError, SourceError
from reyes.netfilter.live import Generation
from reyes.netfilter.settled import Settled
from reyes.state import Identity, State
from reyes.status import Status

LAST_GOOD = "last-good.gpg"

_NO_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on text that is not what it should be."""


class StateDirectory:
    """A follower's state directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._state = directory / "state.json"
        self._last_good = directory / LAST_GOOD
        self._previous = directory / "previous.json"
        self._held = directory / "held.json"
        self._settled = directory / "settled.json"
        self._status = directory / "status.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other run of this host out, or raise SourceError at once.

        Raises:
            ConfigError: the directory cannot be made, or others could change it.
            SourceError: another run is at work.
        """
        try:
            self._make()
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._directory / "lock", flags, 0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot use the state directory {self._directory}: {error.strerror}",
                "make it, owned by the user who runs the follower; "
                "follower.state_directory names it",
            ) from error
        try:
            self._seize(descriptor)
            yield
        finally:
            os.close(descriptor)

    def load(self) -> State:
        """Read what is remembered; a fresh state if there is none.

        Raises:
            ConfigError: the file cannot be read, or is corrupt: it is set aside, and the next
                run starts afresh with the replay guard of `not_after` alone.
        """
        try:
            return self._load()
        except _NO_JSON as error:
            raise _set_aside(self._state, error) from error

    def peek(self) -> State:
        """Read what is remembered and leave the file where it is, whatever it says.

        Raises:
            ConfigError: the file cannot be read, or is corrupt.
        """
        try:
            return self._load()
        except _NO_JSON as error:
            raise ConfigError(
                f"{self._state} is corrupt: {error}", "the next run of the follower sets it aside"
            ) from error

    def save(self, state: State) -> None:
        """Remember a state."""
        write_atomically(self._state, msgspec.json.encode(state), 0o600)

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
        write_atomically(self._last_good, blob, 0o600)

    def generation(self) -> Generation | None:
        """Return the rules that were in force before the last commit that changed them."""
        return self._generation(self._previous)

    def keep_generation(self, generation: Generation | None) -> None:
        """Keep the rules that are in force before a commit changes them; None: there are none."""
        if generation:
            write_atomically(self._previous, msgspec.json.encode(generation), 0o600)
        else:
            self._previous.unlink(missing_ok=True)

    def held_generation(self) -> Generation | None:
        """Return the rules that a rollback brought back."""
        return self._generation(self._held)

    def hold_generation(self, generation: Generation) -> None:
        """Keep the rules that a rollback brought back, with their sets' members."""
        write_atomically(self._held, msgspec.json.encode(generation), 0o600)

    def settled(self) -> Settled | None:
        """Return what the kernel showed after the last good run; None if that is not known."""
        text = self._read(self._settled)
        try:
            return None if text is None else msgspec.json.decode(text, type=Settled)
        except _NO_JSON:
            return None

    def keep_settled(self, settled: Settled) -> None:
        """Keep what the kernel shows after a good run."""
        text = msgspec.json.encode(settled)
        if text != self._read(self._settled):
            write_atomically(self._settled, text, 0o600, durable=False)

    def status(self) -> Status | None:
        """Return what the last run left behind; None if there is nothing that can be understood.

        Raises:
            ConfigError: this user may not read it.
        """
        try:
            return msgspec.json.decode(self._status.read_bytes(), type=Status)
        except (FileNotFoundError, *_NO_JSON):
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
        write_atomically(self._status, msgspec.json.encode(status), 0o644, durable=False)

    def _seize(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SourceError(
                f"another follower run holds {self._directory / 'lock'}", "wait for it to end"
            ) from error

    def _make(self) -> None:
        if make_private_directory(self._directory, 0o755):
            # Whatever the umask is: everybody may read the status, and each secret has mode 0600.
            self._directory.chmod(0o755)

    def _load(self) -> State:
        text = self._read(self._state)
        return State() if text is None else msgspec.json.decode(text, type=State)

    def _generation(self, path: Path) -> Generation | None:
        text = self._read(path)
        if text is None:
            return None
        try:
            return msgspec.json.decode(text, type=Generation)
        except _NO_JSON as error:
            raise _set_aside(path, error) from error

    def _read(self, path: Path) -> bytes | None:
        if not os.path.lexists(path):
            return None
        check_private(path)
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error


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
