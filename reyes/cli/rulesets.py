"""Rulesets for questions: what commands show and explain, and what speaks against believing it."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from reyes.adapters.clock import now
from reyes.adapters.gpg import Gpg
from reyes.adapters.state import LAST_GOOD, StateDirectory
from reyes.check import AUDIT_MODE, jump_problems
from reyes.cli.options import is_disabled
from reyes.cli.sources import FileSource, StoreSource
from reyes.config import Config
from reyes.errors import ReyesError, SignatureError, SourceError
from reyes.netfilter.live import LiveKernel
from reyes.ruleset import Content, DocumentError, decode
from reyes.trust import Genuine, admit, authenticate
from reyes.world import RulesetSource


def fetch_genuine(config: Config, source: RulesetSource) -> Genuine:
    """Fetch a ruleset and check its signature, but not yet whether it is meant for us, now.

    Raises:
        SourceError, ConfigError: it cannot be had.
        SignatureError: it is not signed by a trusted key.
    """
    envelope = source.fetch()
    if envelope is None:
        raise SourceError(f"s3://{config.s3.bucket}/{config.s3.key} came back without content")
    return authenticate(Gpg(config.signing).inspect(envelope), config.signing.pins)


def problem_of(genuine: Genuine, config: Config) -> ReyesError | None:
    """Say why a follower that knows nothing yet would refuse a genuine ruleset, if it would."""
    try:
        admit(genuine, environment=config.environment, now=int(now()), accepted=None)
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
        yield (
            "a rollback holds on this host: the rules in force are those of another time, and a"
            " changed configuration waits as long"
        )
    elif status and status.run.outcome == "failed":
        yield f"the rules in force may be older, as the last pass failed: {status.run.message}"
    if not held and not (applied.enforced if applied else follower.enforce):
        yield AUDIT_MODE.message
    if status and os.geteuid() == 0:
        yield from _kernel_doubts()
    if is_disabled(follower):
        rules = "the rules stay as they are" if applied or held else "no rules are known in force"
        yield f"disabled by {follower.disable_file}: {rules}"


def _kernel_doubts() -> Iterator[str]:
    """Say why this host's kernel may ask others first, or nobody."""
    live = live_kernel()
    if live and live.judges:
        yield from (problem.message for problem in jump_problems(live))
    elif live:
        yield "no rules of Reyes are in force on this host: it judges no packet"


def live_kernel() -> LiveKernel | None:
    """Read this host's kernel as far as anybody may; None if it cannot be read."""
    from reyes.adapters.kernel import Kernel

    try:
        return Kernel().read(strict=False)
    except ReyesError:
        return None


def _source(config: Config, file: Path | None) -> tuple[RulesetSource, str]:
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
    envelope = FileSource(file).fetch()
    text = envelope.blob
    if not text.startswith(b"{"):
        text = Gpg(config.signing).inspect(envelope).payload
    try:
        return decode(text).content
    except DocumentError as error:
        raise SignatureError(f"even unverified it cannot be read: {error}") from error
