"""What a follower knows after a pass: for people, for metrics, for `reyes check`.

Counters only grow, as long as the state directory lives. What a pass did not get to know stays as
the pass before left it: a refused ruleset changes nothing in force.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from reyes.netfilter.compiler import Dataplane
from reyes.policy import Omitted
from reyes.state import Hold
from reyes.text import age_text, duration_text, moment_text
from reyes.trust import VerifiedRuleset

REASONS = {
    1: "bug",
    20: "expired",
    21: "signature",
    22: "replay",
    23: "host_unknown",
    24: "implausible",
    25: "kernel",
    75: "source",
    78: "config",
}
"""One word for each exit code of a pass that failed."""


class Run(Struct, frozen=True, kw_only=True):
    """One pass: when it ended, how long it took, and what became of it.

    `outcome` is one word, and `message` what the error said, if it failed.
    """

    at: int
    seconds: float
    exit_code: int = 0
    outcome: str
    message: str | None = None


class AcceptedRuleset(Struct, frozen=True, kw_only=True):
    """The ruleset that was accepted last, and whose word it is."""

    serial: int
    generated_at: int
    not_after: int
    environment: str
    signer: str
    key_expires_at: int | None


class SetFill(Struct, frozen=True, kw_only=True):
    """A set, its entries and how many it may have."""

    name: str
    entries: int
    maximum: int


class Applied(Struct, frozen=True, kw_only=True):
    """What is in force: since when, and how many seconds the commit took.

    `enforced` is false in audit mode, where what would be denied is let through.
    """

    at: int
    seconds: float
    rules: int
    sets: tuple[SetFill, ...]
    enforced: bool

    @property
    def members(self) -> int:
        """The number of entries in all sets."""
        return sum(entry.entries for entry in self.sets)


class Counters(Struct, frozen=True, kw_only=True):
    """What happened so far; `refused` counts failed passes by reason."""

    refused: Mapping[str, int] = field(default_factory=dict)
    repaired: int = 0
    rolled_back: int = 0


class Status(Struct, frozen=True, kw_only=True):
    """What the last pass left behind; times are in seconds since the epoch."""

    run: Run
    last_success: int | None = None
    instance: str | None = None
    region: str | None = None
    ruleset: AcceptedRuleset | None = None
    applied: Applied | None = None
    omitted: tuple[Omitted, ...] = ()
    counters: Counters = field(default_factory=Counters)
    hold: Hold | None = None
    disabled: bool = False


class Pass(Struct, kw_only=True):
    """What one pass finds out, as far as it comes; None is what it does not get to know.

    `repaired` is also of a pass that failed, or that went on to new rules. `configured` is what
    one that failed put in force: a changed configuration. `without_rules` is one that failed on
    a host that has none: what was in force before is so no more. `rolled_back` is a rollback, or
    one that took new rules back.
    """

    instance: str | None = None
    region: str | None = None
    ruleset: AcceptedRuleset | None = None
    applied: Applied | None = None
    omitted: tuple[Omitted, ...] | None = None
    repaired: bool = False
    configured: Applied | None = None
    without_rules: bool = False
    rolled_back: bool = False
    hold: Hold | None = None
    disabled: bool = False


def accepted_ruleset(verified: VerifiedRuleset) -> AcceptedRuleset:
    """Describe a ruleset that was accepted."""
    header = verified.ruleset.header
    return AcceptedRuleset(
        serial=header.serial,
        generated_at=header.generated_at,
        not_after=header.not_after,
        environment=header.environment,
        signer=verified.signer,
        key_expires_at=verified.key_expires_at,
    )


def applied_dataplane(dataplane: Dataplane, *, at: int, seconds: float, enforced: bool) -> Applied:
    """Describe a dataplane that a pass found or put in force."""
    return Applied(
        at=at,
        seconds=seconds,
        rules=dataplane.rule_count,
        sets=tuple(
            SetFill(name=entry.name, entries=len(entry.members), maximum=entry.maximum)
            for entry in dataplane.sets
        ),
        enforced=enforced,
    )


def after_pass(before: Status | None, run: Run, done: Pass) -> Status:
    """Say what is known after a pass."""
    before = before or Status(run=run)
    return Status(
        run=run,
        last_success=run.at if run.exit_code == 0 else before.last_success,
        instance=done.instance or before.instance,
        region=done.region or before.region,
        ruleset=done.ruleset or before.ruleset,
        applied=_in_force(before.applied, run.outcome, done),
        omitted=before.omitted if done.omitted is None else done.omitted,
        counters=_counted(before.counters, run, done),
        hold=done.hold,
        disabled=done.disabled,
    )


def status_lines(status: Status, now: int) -> Iterator[str]:
    """Put a status into words."""
    yield from _state_lines(status, now)
    yield f"last run      {_run_text(status.run, now)}"
    if status.run.message:
        yield f"              {status.run.message}"
    if status.last_success is None:
        yield "last success  none"
    else:
        yield f"last success  {age_text(status.last_success, now)} ago"
    if status.instance:
        yield f"instance      {status.instance} in {status.region or 'an unknown region'}"
    if status.ruleset:
        yield from _ruleset_lines(status.ruleset, now)
    if status.applied:
        yield from _applied_lines(status.applied)
    for omitted in status.omitted:
        yield f"omitted       {omitted}"
    counters = status.counters
    refused = ", ".join(
        f"{number} {reason}" for reason, number in sorted(counters.refused.items())
    )
    yield (
        f"so far        repaired {counters.repaired}, rolled back {counters.rolled_back},"
        f" refused {refused or 0}"
    )


def hold_text(hold: Hold) -> str:
    """Say how long a rollback holds."""
    limit = f" or {moment_text(hold.until)}" if hold.until else ""
    return f"a rollback holds until a ruleset with other content than {hold.serial}'s{limit}"


def _in_force(before: Applied | None, outcome: str, done: Pass) -> Applied | None:
    """Say what is in force; a pass that changed nothing does not change since when."""
    match outcome:
        case "removed" | "rolled back":
            return None
        case "held" if done.hold:
            return None
        case "failed":
            return done.configured or (None if done.without_rules else before)
        case "unchanged" if before and done.applied:
            same = replace(done.applied, at=before.at, seconds=before.seconds)
            return before if same == before else done.applied
        case "applied" | "repaired" | "unchanged":
            return done.applied or before
        case _:
            return before


def _counted(before: Counters, run: Run, done: Pass) -> Counters:
    refused = dict(before.refused)
    if run.exit_code:
        reason = REASONS.get(run.exit_code, "bug")
        refused[reason] = refused.get(reason, 0) + 1
    return Counters(
        refused=refused,
        repaired=before.repaired + (done.repaired or run.outcome == "repaired"),
        rolled_back=before.rolled_back + done.rolled_back,
    )


def _state_lines(status: Status, now: int) -> Iterator[str]:
    if status.disabled:
        yield "disabled      nothing is touched"
    if status.hold and not status.hold.ended(now):
        yield f"held          {hold_text(status.hold)}"
    if status.applied and not status.applied.enforced:
        yield "audit mode    what would be denied is let through"


def _run_text(run: Run, now: int) -> str:
    code = f", exit code {run.exit_code}" if run.exit_code else ""
    return f"{age_text(run.at, now)} ago: {run.outcome}{code}, in {run.seconds:.2f} s"


def _ruleset_lines(ruleset: AcceptedRuleset, now: int) -> Iterator[str]:
    left = ruleset.not_after - now
    until = duration_text(abs(left))
    end = f"expires in {until}" if left >= 0 else f"expired {until} ago"
    age = age_text(ruleset.generated_at, now)
    key = ruleset.key_expires_at
    lasts = "never expires" if key is None else f"expires {moment_text(key)}"
    yield f"ruleset       {ruleset.serial} for {ruleset.environment}, {age} old, {end}"
    yield f"signed by     {ruleset.signer} (key {lasts})"


def _applied_lines(applied: Applied) -> Iterator[str]:
    since = f"since {moment_text(applied.at)}, in {applied.seconds:.2f} s"
    yield (
        f"applied       {applied.rules} rules, {len(applied.sets)} sets,"
        f" {applied.members} members, {since}"
    )
    for entry in applied.sets:
        yield f"set           {entry.name}: {entry.entries} of {entry.maximum}"
