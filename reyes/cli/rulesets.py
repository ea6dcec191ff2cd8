"""Where commands get a ruleset from: the store, a file, or what this host accepted last."""

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reyes.adapters.clock import now
from reyes.adapters.state import LAST_GOOD, StateDirectory
from reyes.adapters.threads import side_by_side
from reyes.check import AUDIT_MODE, jump_problems
from reyes.cli.options import is_disabled
from reyes.config import Config
from reyes.envelope import MAX_ENVELOPE_BYTES, Envelope
from reyes.errors import (
    ConfigError,
    ReyesError,
    SignatureError,
    SourceError,
    UnreachableError,
)
from reyes.netfilter.live import LiveKernel
from reyes.ruleset import Content, DocumentError, decode
from reyes.trust import Expectation, Genuine, admit, authenticate
from reyes.world import Source

if TYPE_CHECKING:
    from reyes.adapters.s3 import S3Store


class StoreSource:
    """The object on S3; the client is made when it is needed, as its import costs most.

    All is done in a thread: nothing interrupts a look for a name, but a deadline goes on without.
    """

    def __init__(self, config: Config) -> None:
        self._config = config.s3
        self._store: S3Store | None = None

    def fetch(self, etag: str | None = None) -> Envelope | None:
        """Return the object, or None if it still is the one of this tag."""
        (envelope,) = side_by_side([partial(self._fetch, etag)])()
        return envelope

    def fetch_anew(self, etag: str | None) -> Envelope | None:
        """Do so through a new connection: one that is open outlives rules that allow no other."""
        if self._store:
            self._store.hang_up()
        return self.fetch(etag)

    def _fetch(self, etag: str | None) -> Envelope | None:
        from reyes.adapters.s3 import S3Store

        store = self._store = self._store or S3Store(self._config)
        try:
            return store.fetch(etag)
        except SourceError as error:
            # A client keeps the credentials that it was made with: the next one reads them anew.
            if not isinstance(error, UnreachableError):
                self._store = None
            raise


class FileSource:
    """A local signed file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, etag: str | None = None) -> Envelope:  # noqa: ARG002 - a file has no tag
        """Return the file's bytes, one more than allowed at most."""
        try:
            with self._path.open("rb") as file:
                return Envelope(file.read(MAX_ENVELOPE_BYTES + 1))
        except OSError as error:
            raise ConfigError(f"cannot read {self._path}: {error.strerror}") from error


def fetch_genuine(config: Config, source: Source) -> Genuine:
    """Fetch a ruleset and check its signature, but not yet whether it is meant for us, now.

    Raises:
        SourceError, ConfigError: it cannot be had.
        SignatureError: it is not signed by a trusted key.
    """
    from reyes.adapters.gpg import Gpg

    envelope = source.fetch()
    if envelope is None:
        raise SourceError(f"s3://{config.s3.bucket}/{config.s3.key} came back without content")
    return authenticate(Gpg(config.signing).inspect(envelope), config.signing.pins)


def problem_of(genuine: Genuine, config: Config) -> ReyesError | None:
    """Say why a follower that knows nothing yet would refuse a genuine ruleset, if it would."""
    expectation = Expectation(environment=config.environment, now=int(now()), accepted=None)
    try:
        admit(genuine, expectation)
    except ReyesError as error:
        return error
    return None


def believed_content(config: Config, file: Path | None, *, unverified: bool = False) -> Content:
    """Return the content of a file, of what this host accepted last, or of the store's object.

    For questions, not for the kernel: an expired ruleset is what the kernel may still enforce.
    Whatever a follower would hold against it is said on stderr.

    Raises:
        SignatureError: no trusted key signed it, and `unverified` is not set.
    """
    if unverified and file:
        echo_notes(["UNVERIFIED: nobody vouches for this ruleset"])
        return _unverified(config, file)
    content, notes = believed(config, file)
    echo_notes(notes)
    return content


def believed(config: Config, file: Path | None = None) -> tuple[Content, Iterator[str]]:
    """Return verified content, and notes on it that are made when they are asked for."""
    source, origin = _source(config, file)
    genuine = fetch_genuine(config, source)
    return genuine.ruleset.content, _notes(config, file, genuine, origin)


def accepted_version(config: Config) -> tuple[int, ...]:
    """Return what is another value whenever this host has accepted another ruleset."""
    try:
        kept = _last_good(config).stat()
    except OSError:
        return ()
    return kept.st_ino, kept.st_mtime_ns


def echo_notes(notes: Iterable[str]) -> None:
    """Say on stderr what is to be known of an answer."""
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _notes(config: Config, file: Path | None, genuine: Genuine, origin: str) -> Iterator[str]:
    yield f"ruleset {genuine.ruleset.header.serial} from {origin}"
    problem = problem_of(genuine, config)
    if problem:
        yield problem.message
    if file is None:
        yield from _doubts(config)


def _doubts(config: Config) -> Iterator[str]:
    """Say why this host's kernel may hold other rules than those of what it accepted last."""
    follower = config.follower
    status = StateDirectory(Path(follower.state_directory)).status()
    held = status is not None and status.hold is not None
    applied = status.applied if status else None
    if held:
        yield "a rollback holds on this host: the rules in force are those of another time"
    elif status and status.run.outcome == "failed":
        yield f"the rules in force may be older, as the last pass failed: {status.run.message}"
    if not held and not (applied.enforced if applied else follower.enforce):
        yield AUDIT_MODE.message
    if status and os.geteuid() == 0:
        yield from _kernel_doubts()
    if is_disabled(follower):
        rules = "the rules stay as they are" if applied or held else "no rules are known in force"
        yield f"disabled by {follower.disable_file}: {rules}"


def kernel_judges() -> bool:
    """Tell whether this host's kernel leads any packet to our rules; True if it cannot be read."""
    live = _live()
    return live is None or live.judges


def _kernel_doubts() -> Iterator[str]:
    """Say why this host's kernel may ask others first, or nobody."""
    live = _live()
    if live and live.judges:
        yield from (problem.message for problem in jump_problems(live))
    elif live:
        yield "no rules of Reyes are in force on this host: it judges no packet"


def _live() -> LiveKernel | None:
    from reyes.adapters.kernel import Kernel

    try:
        return Kernel().read(strict=False)
    except ReyesError:
        return None


def _source(config: Config, file: Path | None) -> tuple[Source, str]:
    if file:
        return FileSource(file), str(file)
    last_good = _last_good(config)
    if os.access(last_good, os.R_OK):
        return FileSource(last_good), str(last_good)
    return StoreSource(config), f"s3://{config.s3.bucket}/{config.s3.key}"


def _last_good(config: Config) -> Path:
    return Path(config.follower.state_directory) / LAST_GOOD


def _unverified(config: Config, file: Path) -> Content:
    """Read a signed object without asking who signed it, or a bare document."""
    from reyes.adapters.gpg import Gpg

    envelope = FileSource(file).fetch()
    text = envelope.blob
    if not text.startswith(b"{"):
        text = Gpg(config.signing).inspect(envelope).payload
    try:
        return decode(text).content
    except DocumentError as error:
        raise SignatureError(f"even unverified it cannot be read: {error}") from error
