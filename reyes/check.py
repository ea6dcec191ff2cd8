"""What monitoring should know about a host: its last pass, and its kernel against the ruleset.

ok        0
warning   1   somebody should look today
critical  2   the host does not enforce what is published, or somebody attacks it
unknown   3   not enough rights to tell
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from msgspec import Struct

from reyes.netfilter import names
from reyes.netfilter.changes import describe_changes
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.plan import FilterTable
from reyes.status import REASONS, AcceptedRuleset, Status, hold_text
from reyes.text import age_text, duration_text, first_of, moment_text
from reyes.trust import KEY_WARNING, MAX_CLOCK_SKEW

Severity = Literal["ok", "warning", "critical", "unknown"]

EXIT_CODES: dict[Severity, int] = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}

SHOWN = 2
"""So many differences of a kernel are said in words; `reyes follower --dry-run` says all."""

_WORST_FIRST: tuple[Severity, ...] = ("critical", "unknown", "warning")
_HARMLESS = ("source",)
"""Reasons that are noise until no pass has succeeded for too long."""
_ORDINARY = ("host_unknown", "implausible")
"""Reasons that often mend themselves within minutes."""
_LAST_QUARTER = 4


class Problem(Struct, frozen=True):
    """Something that is not as it should be."""

    severity: Severity
    message: str


AUDIT_MODE = Problem("warning", "audit mode: what would be denied is let through")


class Limits(Struct, frozen=True, kw_only=True):
    """Seconds without a pass, or without a successful one, from which on that is a problem."""

    warning: int = 900
    critical: int = 2700


def verdict(problems: Iterable[Problem]) -> Severity:
    """Return the worst severity; a certain problem counts more than one that may be."""
    found = {problem.severity for problem in problems}
    return next((severity for severity in _WORST_FIRST if severity in found), "ok")


def verdict_line(problems: Iterable[Problem], status: Status | None, now: int) -> str:
    """Say all in one line, the worst first."""
    ordered = sorted(problems, key=lambda problem: _WORST_FIRST.index(problem.severity))
    if ordered or status is None:
        said = "; ".join(problem.message for problem in ordered)
        return f"{verdict(ordered).upper()}: {said}"
    parts = [f"{status.run.outcome} {age_text(status.run.at, now)} ago"]
    if status.run.exit_code and status.last_success is not None:
        parts.append(f"last success {age_text(status.last_success, now)} ago")
    if status.ruleset:
        parts.append(f"ruleset {status.ruleset.serial}")
    if status.applied:
        parts.append(f"{status.applied.rules} rules, {status.applied.members} members")
    return f"OK: {', '.join(parts)}"


def status_problems(status: Status | None, now: int, limits: Limits) -> Iterator[Problem]:
    """Find what is wrong with the last passes."""
    if status is None:
        yield Problem("critical", "no pass is on record: does a follower run?")
        return
    yield from _too_old("the last pass was", status.run.at, now, limits)
    if status.run.exit_code:
        yield from _failure(status, now, limits)
    if status.disabled:
        yield Problem("warning", "disabled: nothing is touched")
    elif status.hold and not status.hold.ended(now):
        yield Problem("warning", hold_text(status.hold))
    if status.applied and not status.applied.enforced:
        yield AUDIT_MODE
    if status.ruleset:
        yield from _expiry(status.ruleset, now)


def drift_problems(
    dataplane: Dataplane,
    live: LiveKernel,
    members: Mapping[str, tuple[str, ...]],
    filter_table: FilterTable,
) -> Iterator[Problem]:
    """Say how a kernel differs from the dataplane that was put in force."""
    jumps = list(jump_problems(live))
    yield from jumps
    changes = [
        change
        for change in describe_changes(dataplane, live, members, filter_table)
        if not (jumps and f"INPUT: jump to {names.INPUT}" in change)
    ]
    if changes:
        said = first_of(changes, SHOWN)
        yield Problem("critical", f"drift: the kernel lacks (+) or has too much (-): {said}")
    elif not jumps:
        yield Problem("critical", "drift: the kernel's rules are not those of the ruleset")


def jump_problems(live: LiveKernel) -> Iterator[Problem]:
    """Find families in which packets do not come to our chains first."""
    for table in live.tables:
        if not table.jump_in_place:
            wrong = "is there twice" if len(table.jumps) > 1 else "is not the first rule of INPUT"
            message = f"the jump to {names.INPUT} {wrong} (IPv{table.family.value})"
            yield Problem("critical", message)


def _too_old(what: str, then: int, now: int, limits: Limits) -> Iterator[Problem]:
    severity: Severity = "critical" if now - then >= limits.critical else "warning"
    if now - then >= min(limits.warning, limits.critical):
        yield Problem(severity, f"{what} {age_text(then, now)} ago")
    elif then - now > MAX_CLOCK_SKEW:  # its age would be none for as long
        message = f"{what} at {moment_text(then)}, which is to come: is this host's clock right"
        yield Problem("warning", message)


def _failure(status: Status, now: int, limits: Limits) -> Iterator[Problem]:
    run = status.run
    reason = REASONS.get(run.exit_code, "bug")
    harmless = reason in _HARMLESS
    if not harmless:
        severity: Severity = "warning" if reason in _ORDINARY else "critical"
        message = f"the last pass failed with exit code {run.exit_code}: {run.message}"
        yield Problem(severity, message)
    if status.last_success is None:
        why = f": {run.message}" if harmless else ""
        yield Problem("warning", f"no pass has succeeded yet{why}")
    else:
        yield from _too_old("the last success was", status.last_success, now, limits)


def _expiry(ruleset: AcceptedRuleset, now: int) -> Iterator[Problem]:
    left = ruleset.not_after - now
    validity = ruleset.not_after - ruleset.generated_at
    if left < 0:
        message = f"the ruleset expired {duration_text(-left)} ago: no fresher one arrives"
        yield Problem("critical", message)
    elif left * _LAST_QUARTER < validity:
        message = f"the ruleset expires in {duration_text(left)}: no fresher one arrives"
        yield Problem("warning", message)
    key = ruleset.key_expires_at
    if key is not None and key - now < KEY_WARNING:
        yield Problem("warning", f"the signing key expires at {moment_text(key)}")
