"""The leader's pass: read EC2, say what it means, sign it, publish it.

Rules it keeps:

* The published object is fetched before EC2 is described, so that its tag is older than what we
  know, and replaced only while it is still that object: whoever publishes meanwhile knows as much
  as that one did, or more, and losing to him is no failure.
* Nothing is published that followers would refuse: their own code judges it first.
* An object that is not genuine is no yardstick for anything. It is replaced, so that a vandalised
  bucket heals; followers never believed it. The same is true of one older than what we have read.
* The serial rises with each publication, and never runs ahead of the clocks: a genuine object
  from the future counts for the guard, and not for the serial.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Literal, Protocol

from msgspec import Struct

from reyes import trust
from reyes.config import Config, LeaderConfig
from reyes.difference import Difference, compare
from reyes.envelope import MAX_ENVELOPE_BYTES, MAX_PAYLOAD_BYTES, Envelope, SignatureReport
from reyes.errors import ConfigError, ReyesError, SignatureError, SourceError
from reyes.inventory import View, merge
from reyes.plausible import refuse_losses, refuse_openings
from reyes.ruleset import Counts, Header, Ruleset, count, encode
from reyes.text import moment_text

MAX_TRIES = 3
"""How often to publish again where S3 refused and yet nobody else has published."""

log = logging.getLogger(__name__)


class Store(Protocol):
    """Where the signed ruleset lies."""

    def current(self) -> Envelope | None:
        """Return what is published, None if nothing is."""

    def publish(self, envelope: Envelope, replacing: str | None) -> bool:
        """Replace the object tagged `replacing`, or none; False if another one is there."""

    def archive(self, key: str, envelope: Envelope) -> None:
        """Keep a copy."""


class Signer(Protocol):
    """Who holds the key."""

    def sign(self, payload: bytes) -> Envelope:
        """Sign with exactly the configured key."""

    def inspect(self, envelope: Envelope) -> SignatureReport:
        """Report what followers would find."""


Reader = Callable[[], AbstractContextManager[Callable[[], Sequence[View]]]]
"""Begins to read EC2, and gives what waits for all of it; the end of the block stops it."""


class Request(Struct, frozen=True, kw_only=True):
    """What one pass is asked to do; `now` tells the seconds since the epoch."""

    now: Callable[[], float]
    generator: str
    dry_run: bool = False
    force: bool = False


class Outcome(Struct, frozen=True, kw_only=True):
    """What one pass did. `previous` is what was published before, if it was genuine.

    `not_archived` says why there is no copy of what was published.
    """

    status: Literal["published", "superseded", "dry run"]
    ruleset: Ruleset
    envelope: Envelope
    previous: Ruleset | None
    difference: Difference
    not_archived: SourceError | None = None


class _Published(Struct, frozen=True):
    """What lies in the store: its tag, and what it says if it is genuine."""

    etag: str | None = None
    genuine: trust.Genuine | None = None

    @property
    def ruleset(self) -> Ruleset | None:
        return self.genuine.ruleset if self.genuine else None


def publish_pass(
    config: Config, request: Request, *, store: Store, read: Reader, signer: Signer
) -> Outcome:
    """Publish one ruleset, or say why not.

    Raises:
        ConfigError: there is no leader's configuration, two fleets share one key, or the world is
            larger than a ruleset may be.
        SourceError: EC2 or S3 finally failed.
        ImplausibleError: too much vanished since the last publication, or the excluded groups
            leave whole networks open.
        SignatureError: what was signed is not what followers would accept.
    """
    leader, now = leader_config(config), request.now()
    published = store.current()
    with read() as views:
        before = _examine(config, published, signer, force=request.force)
        content = merge(views(), leader.group_matching, leader.excluded_group_names)
    counts = count(content, len(leader.sources))
    if published is None and not request.force:
        refuse_openings(config, None, content)
    if before.ruleset and not request.force:
        refuse_openings(config, before.ruleset.content, content)
        refuse_losses(before.ruleset.header.counts, counts, leader.max_shrink)
    accepted = _accepted(before.genuine, now)
    header = _header(config, request, now, counts, accepted)
    envelope = _sign(signer, encode(header, content))
    del content  # of a large world no two copies: what was signed is read back
    verified = _verify(config, request, signer.inspect(envelope), accepted)
    status: Literal["published", "superseded", "dry run"] = "dry run"
    not_archived: SourceError | None = None

    def is_newer(there: Envelope) -> bool:
        found = _accepted(_examine(config, there, signer, force=False).genuine, request.now())
        return found is not None and (accepted is None or found.serial > accepted.serial)

    if not request.dry_run:
        won = _publish(store, envelope, before.etag, is_newer)
        status = "published" if won else "superseded"
    if status == "published":
        not_archived = _archive(store, archive_key(header, config.s3.key), envelope)
    return Outcome(
        status=status,
        not_archived=not_archived,
        ruleset=verified.ruleset,
        envelope=envelope,
        previous=before.ruleset,
        difference=compare(
            before.ruleset.content if before.ruleset else None, verified.ruleset.content
        ),
    )


def archive_key(header: Header, key: str) -> str:
    """Name the archived copy of a ruleset by the UTC day of its making, its serial and its key."""
    day = datetime.fromtimestamp(header.generated_at, UTC)
    return f"archive/{day:%Y/%m/%d}/{header.serial}-{key}"


def leader_config(config: Config) -> LeaderConfig:
    """Return the leader's section; ConfigError if there is none."""
    if config.leader is None:
        raise ConfigError(
            "the configuration has no leader section",
            "examples/config.yaml shows one; followers need none",
        )
    return config.leader


def _examine(
    config: Config, envelope: Envelope | None, signer: Signer, *, force: bool
) -> _Published:
    """Say what is published."""
    if envelope is None:
        log.info("nothing is published yet")
        return _Published()
    try:
        genuine = trust.authenticate(signer.inspect(envelope), config.signing.pins)
    except SignatureError as error:
        reason = error.message
        log.error("the published object is not genuine and will be replaced: %s", reason)  # noqa: TRY400 - a refusal, not a bug
        return _Published(envelope.etag)
    environment = genuine.ruleset.header.environment
    if environment != config.environment:
        found = (
            f"environment is {config.environment!r}, and s3.key holds the ruleset of"
            f" {environment!r}"
        )
        if force:
            log.error("%s, which will be replaced", found)
            return _Published(envelope.etag)
        raise ConfigError(
            found,
            "two fleets may share one key: give each an s3.key of its own;"
            " --force replaces what somebody has put there by mistake",
        )
    return _Published(envelope.etag, genuine)


def _accepted(genuine: trust.Genuine | None, now: float) -> trust.Accepted | None:
    """Say what followers hold: the published ruleset, unless it comes from the future."""
    if genuine is None:
        return None
    header = genuine.ruleset.header
    if trust.ahead(header, now) > trust.MAX_CLOCK_SKEW:
        log.error("the published serial %s is from the future, going back", header.serial)
        return None
    return genuine.accepted


def _header(
    config: Config, request: Request, now: float, counts: Counts, accepted: trust.Accepted | None
) -> Header:
    """Say when, where and by whom; a clock that is behind still counts the serial up."""
    return Header(
        environment=config.environment,
        serial=max(accepted.serial + 1 if accepted else 0, int(now * 1000)),
        generated_at=int(now),
        not_after=int(now) + leader_config(config).validity,
        generator=request.generator,
        counts=counts,
    )


def _sign(signer: Signer, payload: bytes) -> Envelope:
    """Sign what followers can take: more than their bounds they would not even look at."""
    _check_size("text of the ruleset", payload, MAX_PAYLOAD_BYTES)
    envelope = signer.sign(payload)
    _check_size("signed ruleset", envelope.blob, MAX_ENVELOPE_BYTES)
    return envelope


def _check_size(what: str, content: bytes, most: int) -> None:
    if len(content) > most:
        raise ConfigError(
            f"the {what} would have {len(content)} bytes, and followers take {most}",
            "split the fleet: name fewer VPCs in leader.sources, and give the others an"
            " environment and an s3.key of their own",
        )


def _verify(
    config: Config, request: Request, report: SignatureReport, accepted: trust.Accepted | None
) -> trust.VerifiedRuleset:
    """Read back what was signed by the code that followers use, as one that is up to date.

    By the time that it is now: a ruleset may expire while EC2 is read.
    """
    now = request.now()
    try:
        verified = trust.admit(
            trust.authenticate(report, config.signing.pins),
            environment=config.environment,
            now=int(now),
            accepted=accepted,
            force=request.force,
        )
    except ReyesError as error:
        message = f"followers would refuse this ruleset, it is not published: {error.message}"
        raise type(error)(message, error.hint) from error
    _warn_of_expiry(verified, now)
    return verified


def _publish(
    store: Store, envelope: Envelope, replacing: str | None, is_newer: Callable[[Envelope], bool]
) -> bool:
    """Replace what was read; False if another leader did so first.

    After a lost answer the object that is in the way is our own. One that no leader would have put
    there in the place of what was read is replaced as well.
    """
    for _ in range(MAX_TRIES):
        if store.publish(envelope, replacing):
            return True
        there = store.current()
        if there and there.blob == envelope.blob:
            return True
        if there and there.etag != replacing and is_newer(there):
            return False
        replacing = there.etag if there else None
    raise SourceError(
        f"the store refused {MAX_TRIES} times, and nobody else has published",
        "the next run tries again",
    )


def _archive(store: Store, key: str, envelope: Envelope) -> SourceError | None:
    """Keep a copy, or return why there is none: the ruleset is published all the same."""
    try:
        store.archive(key, envelope)
    except SourceError as error:
        message = f"the ruleset is published, but not archived: {error.message}"
        return SourceError(message, error.hint)
    return None


def _warn_of_expiry(verified: trust.VerifiedRuleset, now: float) -> None:
    end = verified.key_expires_at
    if end is not None and end - now < trust.KEY_WARNING:
        log.warning(
            "the signing key %s expires at %s: prolong it, on all leaders and followers",
            verified.signer,
            moment_text(end),
        )
