"""What must hold before a ruleset is believed, and the one door to a `VerifiedRuleset`.

`authenticate` asks whether a trusted key said it, and whether a leader would say such a thing
(SignatureError). gpg reports 1 to 4 separately, and each has been seen to look good alone on a
message that must be refused:

 1. the signing key is neither expired nor revoked
 2. gpg calls the signature valid, in its status and in `valid`
 3. gpg ended well, and met no problem on the way
 4. there is exactly one signature
 5. the primary key of the signature is pinned
 6. the payload is not empty and within its bound
 7. the payload is the canonical text of a document
 8. the header's counts are those of the content
 9. it ends after it begins, and lives no longer than any leader may say

`admit` asks whether it is meant for this host, now:

10. it was made for this environment (ReplayError)
11. it does not come from the future (ReplayError)
12. it is not older than what was accepted before, nor another of the same serial (ReplayError)
13. it has not expired (ExpiredError)
14. the world in it is plausible, unless forced or accepted before (ImplausibleError)

The order matters: an old ruleset that somebody serves again is usually expired as well, and must
be called a replay (look who does this), not an expiry (look why the leader is silent).

Not here: size of the object, size of what gpg prints, its CPU time and memory, armor and rights of
the keyring (adapters.gpg), `content_sha256` and the form of each value (ruleset), addresses
(members), keeping what was accepted (acceptance), the finer guard against shrinking (leader).
"""

import hashlib

from msgspec import Struct
from msgspec.structs import asdict

from reyes.config import MAX_VALIDITY
from reyes.envelope import MAX_PAYLOAD_BYTES, SignatureReport
from reyes.errors import ExpiredError, ImplausibleError, ReplayError, SignatureError
from reyes.ruleset import Counts, DocumentError, Header, Ruleset, count, decode
from reyes.text import duration_text, moment_text

MAX_CLOCK_SKEW = 120
"""Seconds that a leader's clock may be ahead of ours."""

KEY_WARNING = 30 * 86_400
"""Seconds before the signing key's end from which on it is mentioned."""

PLAUSIBLE_SHARE = 10
"""A world smaller than its predecessor by more than this factor is not believed."""


class Accepted(Struct, frozen=True, kw_only=True):
    """The highest ruleset that this host has accepted."""

    serial: int
    digest: str
    counts: Counts


class Genuine(Struct, frozen=True, kw_only=True):
    """A ruleset that a trusted key signed; `digest` is the SHA-256 of the signed text."""

    ruleset: Ruleset
    digest: str
    signer: str
    key_expires_at: int | None

    @property
    def accepted(self) -> Accepted:
        """What is remembered of it once it has been accepted."""
        header = self.ruleset.header
        return Accepted(serial=header.serial, digest=self.digest, counts=header.counts)


class VerifiedRuleset(Genuine, frozen=True, kw_only=True):
    """A ruleset to act on. Only `admit` and `readmit` make one."""


def authenticate(report: SignatureReport, pins: frozenset[str]) -> Genuine:
    """Return the ruleset if a pinned key signed it; `pins` are primary fingerprints.

    Raises:
        SignatureError: any of 1 to 9 does not hold.
    """
    signer = _check_signature(report, pins)
    # 6.
    if not report.payload:
        raise SignatureError("the signed text is empty")
    if len(report.payload) > MAX_PAYLOAD_BYTES:
        raise SignatureError(
            f"the signed text has {len(report.payload)} bytes, more than {MAX_PAYLOAD_BYTES}"
        )
    # 7.
    try:
        ruleset = decode(report.payload)
    except DocumentError as error:
        raise SignatureError(f"the signed text is refused: {error}") from error
    _check_claims(ruleset)
    return Genuine(
        ruleset=ruleset,
        digest=hashlib.sha256(report.payload).hexdigest(),
        signer=signer,
        key_expires_at=report.key_expires_at,
    )


def admit(
    genuine: Genuine, *, environment: str, now: int, accepted: Accepted | None, force: bool = False
) -> VerifiedRuleset:
    """Return the ruleset if it is for this host, now (in seconds).

    Raises:
        ReplayError: it is from elsewhere, from the future or from the past (10 to 12).
        ExpiredError: its time is over (13).
        ImplausibleError: hardly anything is left of the world (14).
    """
    header = genuine.ruleset.header
    _check_environment(header, environment)
    _check_future(header, now)
    if accepted:
        _check_replay(header, genuine.digest, accepted)
    # 13.
    refuse_expired(header.not_after, now)
    # 14. A ruleset that --force let in once needs no force to stay.
    known = accepted is not None and accepted.digest == genuine.digest
    if not force and not known:
        _check_plausible(header.counts, accepted)
    return VerifiedRuleset(**asdict(genuine))


def ahead(header: Header, now: float) -> float:
    """Return how many seconds a ruleset is ahead of a clock, by its serial or its own time."""
    return max(header.generated_at, header.serial // 1000) - now


def refuse_expired(not_after: int, now: int) -> None:
    """Raise ExpiredError if the time of a ruleset is over."""
    if not_after < now:
        raise ExpiredError(
            f"ruleset expired {duration_text(now - not_after)} ago"
            f" (not_after {moment_text(not_after)})",
            "is this host's clock right? Else find out why no fresh one arrives: do the leaders"
            " run, and is S3's answer current",
        )


def readmit(genuine: Genuine, environment: str, accepted: Accepted) -> VerifiedRuleset:
    """Return a ruleset that this host has kept, whatever the time is now.

    For what may not wait for a fresh one: rules at boot, questions about rules in force. One
    that is newer than what was accepted was admitted, and its pass died before it could say so.

    Raises:
        ReplayError: it is not the one that was accepted last, or of another environment.
    """
    header = genuine.ruleset.header
    _check_environment(header, environment)
    if accepted.digest != genuine.digest and header.serial <= accepted.serial:
        raise ReplayError(
            "the kept ruleset is not the one that was accepted last",
            "the next run fetches it anew",
        )
    return VerifiedRuleset(**asdict(genuine))


def _check_signature(report: SignatureReport, pins: frozenset[str]) -> str:
    # 1. to 4.
    for good, found in (
        (report.key_status is None, f"the {report.key_status}"),
        (report.status == "signature valid", f"gpg says {report.status!r}"),
        (report.valid is True, "gpg does not call it valid"),
        (report.returncode == 0, f"gpg ended with exit code {report.returncode}"),
        (report.problems == 0, f"gpg met {report.problems} problems"),
        (report.signatures == 1, f"there are {report.signatures} signatures, not one"),
    ):
        if not good:
            raise SignatureError(
                f"signature refused: {found}",
                "find out who wrote that object, and whether trusted.gpg is current (export a"
                " prolonged key anew) and this host's clock later than its keys",
            )
    # 5.
    signer = (report.primary_fingerprint or "").upper()
    if signer not in {pin.upper() for pin in pins}:
        raise SignatureError(
            f"signature refused: its key {signer or 'without fingerprint'} is not trusted here",
            "trusted are only the primary keys named in signing.trusted_keys, else signing_key",
        )
    return signer


def _check_claims(ruleset: Ruleset) -> None:
    header = ruleset.header
    # 8.
    counts = count(ruleset.content, header.counts.sources)
    if header.counts != counts:
        raise SignatureError(f"the header claims {header.counts}, and the content holds {counts}")
    # 9.
    validity = header.not_after - header.generated_at
    if validity <= 0:
        raise SignatureError(
            f"not_after {moment_text(header.not_after)} is not later than"
            f" generated_at {moment_text(header.generated_at)}"
        )
    if validity > MAX_VALIDITY:
        raise SignatureError(
            f"the ruleset claims to be valid for {duration_text(validity)},"
            f" and none may be for more than {duration_text(MAX_VALIDITY)}"
        )


def _check_environment(header: Header, environment: str) -> None:
    # 10.
    if header.environment != environment:
        raise ReplayError(
            f"ruleset is for environment {header.environment!r}, and this host is in"
            f" {environment!r}",
            "compare s3.bucket, s3.key and environment with the leader's configuration",
        )


def _check_future(header: Header, now: int) -> None:
    # 11. Else one serial from far ahead would make every honest one after it a rollback.
    seconds = int(ahead(header, now))
    if seconds > MAX_CLOCK_SKEW:
        raise ReplayError(
            f"ruleset comes from the future: it is {duration_text(seconds)} ahead of this host"
            f" (generated_at {moment_text(header.generated_at)}, serial {header.serial})",
            "compare this host's clock with the leader's",
        )


def _check_replay(header: Header, digest: str, accepted: Accepted) -> None:
    # 12.
    if header.serial < accepted.serial:
        raise ReplayError(
            f"rollback: serial {header.serial} is lower than {accepted.serial},"
            " which was accepted before",
            "find out who serves old rulesets",
        )
    if header.serial == accepted.serial and digest != accepted.digest:
        raise ReplayError(
            f"equivocation: serial {header.serial} was accepted before with another content",
            "find out who publishes besides the leaders; no two rulesets share a serial",
        )


def _check_plausible(counts: Counts, accepted: Accepted | None) -> None:
    # 14.
    if counts.interfaces == 0:
        raise ImplausibleError(
            "ruleset holds no network interface at all",
            "look at the leader's sources; --force accepts it",
        )
    if accepted is None:
        return
    for what, before, left in (
        ("security groups", accepted.counts.groups, counts.groups),
        ("instances", accepted.counts.instances, counts.instances),
        ("group members", accepted.counts.members, counts.members),
    ):
        if left * PLAUSIBLE_SHARE < before:
            raise ImplausibleError(
                f"{what} fell from {before} to {left}",
                "look at what vanished from the leader's sources; --force accepts it",
            )
