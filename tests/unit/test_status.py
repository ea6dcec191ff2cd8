"""What a follower knows after a pass, and how it is said."""

from typing import Any

import pytest
from msgspec.structs import replace

from reyes import errors
from reyes.policy import Omitted
from reyes.state import Hold
from reyes.status import (
    REASONS,
    AcceptedRuleset,
    Applied,
    Pass,
    Run,
    SetFill,
    Status,
    accepted_ruleset,
    after_pass,
    applied_dataplane,
    status_lines,
)
from tests.machine import NOW, Machine

RULESET = AcceptedRuleset(
    serial=NOW * 1000,
    generated_at=NOW,
    not_after=NOW + 3600,
    environment="production",
    signer="A" * 40,
    key_expires_at=None,
)
APPLIED = Applied(
    at=NOW,
    seconds=0.5,
    rules=12,
    sets=(SetFill(name="r4:app:0123456789abcdefghij", entries=2, maximum=2),),
    enforced=True,
)
OMITTED = Omitted(group="sg-0000000a", rule=1, what="pl-1", reason="unreadable")


def a_pass(outcome: str, at: int = NOW, **more: Any) -> tuple[Run, Pass]:
    code = more.pop("exit_code", 0)
    run = Run(
        at=at, seconds=0.25, exit_code=code, outcome=outcome, message=more.pop("message", None)
    )
    return run, Pass(**more)


def a_full_pass(outcome: str, at: int = NOW, **more: Any) -> tuple[Run, Pass]:
    known: dict[str, Any] = {
        "instance": "i-0000000b",
        "region": "us-west-2",
        "ruleset": RULESET,
        "applied": replace(APPLIED, at=at),
        "omitted": (OMITTED,),
    }
    return a_pass(outcome, at, **(known | more))


def after(*passes: tuple[Run, Pass]) -> Status:
    status: Status | None = None
    for one in passes:
        status = after_pass(status, *one)
    assert status
    return status


def test_every_error_has_a_reason_of_its_own() -> None:
    codes = {error.exit_code for error in errors.ReyesError.__subclasses__()}
    assert set(REASONS) == codes | {1}
    assert len(set(REASONS.values())) == len(REASONS)


def test_a_failed_pass_changes_nothing_in_force() -> None:
    status = after(
        a_full_pass("applied"),
        a_pass("failed", NOW + 60, exit_code=21, message="signature refused"),
    )
    assert status.run.message == "signature refused"
    assert status.last_success == NOW
    assert (status.instance, status.ruleset, status.applied) == ("i-0000000b", RULESET, APPLIED)
    assert status.omitted == (OMITTED,)
    assert status.counters.refused == {"signature": 1}


def test_what_a_refused_pass_knows_of_a_new_ruleset_is_kept() -> None:
    newer = replace(RULESET, serial=RULESET.serial + 1)
    status = after(a_full_pass("applied"), a_pass("failed", NOW + 60, exit_code=23, ruleset=newer))
    assert (status.ruleset, status.applied) == (newer, APPLIED)


def test_an_unchanged_pass_does_not_change_since_when() -> None:
    status = after(a_full_pass("applied"), a_full_pass("unchanged", NOW + 60))
    assert status.applied == APPLIED
    assert status.last_success == NOW + 60


def test_a_pass_that_found_all_as_it_was_does_not_forget_what_is_in_force() -> None:
    status = after(a_full_pass("applied"), a_pass("unchanged", NOW + 60))
    assert (status.applied, status.omitted) == (APPLIED, (OMITTED,))
    assert (status.instance, status.region) == ("i-0000000b", "us-west-2")


@pytest.mark.parametrize("outcome", ["applied", "repaired"])
def test_a_commit_does(outcome: str) -> None:
    status = after(a_full_pass("applied"), a_full_pass(outcome, NOW + 60))
    assert status.applied == replace(APPLIED, at=NOW + 60)


def test_an_unchanged_pass_after_one_that_could_not_write_its_status_tells_what_it_found() -> None:
    other = replace(APPLIED, at=NOW + 60, rules=13)
    status = after(a_full_pass("applied"), a_full_pass("unchanged", NOW + 60, applied=other))
    assert status.applied == other


def test_a_configuration_that_came_in_force_before_a_pass_failed_is_described() -> None:
    other = replace(APPLIED, at=NOW + 60, enforced=False)
    failed = a_full_pass("failed", NOW + 60, exit_code=75, configured=other)
    assert after(a_full_pass("applied"), failed).applied == other


@pytest.mark.parametrize("outcome", ["held", "removed", "rolled back"])
def test_rules_of_no_ruleset_are_not_described(outcome: str) -> None:
    hold = Hold(serial=1, content_sha256="", until=0) if outcome == "held" else None
    assert after(a_full_pass("applied"), a_full_pass(outcome, hold=hold)).applied is None


def test_rules_that_stand_instead_of_blamed_ones_are_described() -> None:
    held = a_full_pass("held", NOW + 60, applied=replace(APPLIED, at=NOW + 60, rules=1))
    assert after(a_full_pass("applied"), held).applied == APPLIED


def test_counters_only_grow() -> None:
    status = after(
        a_full_pass("applied"),
        a_full_pass("repaired"),
        a_pass("failed", exit_code=75),
        a_pass("failed", exit_code=75),
        a_pass("failed", exit_code=25, rolled_back=True),
        a_pass("failed", exit_code=1),
        a_full_pass("repaired", repaired=True),
        a_full_pass("applied", repaired=True),
    )
    counters = status.counters
    assert (counters.repaired, counters.rolled_back) == (3, 1)
    assert counters.refused == {"source": 2, "kernel": 1, "bug": 1}


def test_a_disabled_pass_leaves_all_but_the_run_as_it_was() -> None:
    status = after(a_full_pass("applied"), a_pass("disabled", NOW + 60, disabled=True))
    assert status.disabled
    assert (status.applied, status.last_success) == (APPLIED, NOW + 60)


def test_a_hold_ends_with_the_pass_that_ends_it() -> None:
    hold = Hold(serial=1, content_sha256="c", until=0)
    held = after(a_full_pass("held", hold=hold))
    assert held.hold == hold
    assert after_pass(held, *a_full_pass("applied")).hold is None


@pytest.mark.parametrize(("until", "ended"), [(0, False), (NOW + 1, False), (NOW, True)])
def test_a_hold_that_is_over_is_not_said(until: int, ended: bool) -> None:
    hold = Hold(serial=7, content_sha256="c", until=until)
    assert hold.ended(NOW) is ended
    status = after(a_full_pass("held", hold=hold))
    said = [line for line in status_lines(status, NOW) if line.startswith("held ")]
    assert len(said) == (not ended)


def test_what_a_pass_has_in_hand_is_described() -> None:
    prepared = Machine().prepare()
    assert accepted_ruleset(prepared.verified) == replace(RULESET, signer=prepared.verified.signer)
    applied = applied_dataplane(prepared.dataplane, at=NOW, seconds=0.5, enforced=False)
    assert applied.rules == sum(
        len(chain.rules) for table in prepared.dataplane.tables for chain in table.chains
    )
    (fill,) = [entry for entry in applied.sets if entry.name.startswith("r4:web:")]
    assert (fill.entries, fill.maximum) == (1, 1)
    assert applied.members == sum(len(entry.members) for entry in prepared.dataplane.sets)
    assert applied.enforced is False


def test_a_status_in_words() -> None:
    status = after(a_full_pass("applied"), a_full_pass("repaired", NOW + 60))
    assert list(status_lines(status, NOW + 180)) == [
        "last run      2 minutes ago: repaired, in 0.25 s",
        "last success  2 minutes ago",
        "instance      i-0000000b in us-west-2",
        f"ruleset       {NOW}000 for production, 3 minutes old, expires in 57 minutes",
        f"signed by     {'A' * 40} (key never expires)",
        "applied       12 rules, 1 sets, 2 members, since 2026-11-18T11:07:40Z, in 0.50 s",
        "set           r4:app:0123456789abcdefghij: 2 of 2",
        "omitted       sg-0000000a rule 1: pl-1: unreadable",
        "so far        repaired 1, rolled back 0, refused 0",
    ]


def test_trouble_in_words() -> None:
    status = after(
        a_pass(
            "failed",
            exit_code=20,
            message="the last good ruleset has expired",
            ruleset=replace(RULESET, not_after=NOW - 7200, key_expires_at=NOW),
            applied=APPLIED,
            hold=Hold(serial=7, content_sha256="c", until=NOW + 60),
        )
    )
    text = "\n".join(status_lines(replace(status, disabled=True), NOW - 5))
    for part in (
        "disabled      nothing is touched",
        "held          a rollback holds until a ruleset with other content than 7's or 2026-",
        "last run      0 seconds ago: failed, exit code 20, in 0.25 s",
        "              the last good ruleset has expired",
        "last success  none",
        "expired 119 minutes ago",
        "(key expires 2026-11-18T11:06:40Z)",
        "refused 1 expired",
    ):
        assert part in text


@pytest.mark.parametrize(("left", "end"), [(0, "expires in 0 s"), (-1, "expired 1 second ago")])
def test_a_ruleset_ends_behind_its_last_second(left: int, end: str) -> None:
    status = after(a_full_pass("applied"))
    (line,) = (
        one for one in status_lines(status, NOW + 3600 - left) if one.startswith("ruleset ")
    )
    assert end in line


def test_audit_mode_is_said_first() -> None:
    status = after(a_full_pass("applied", applied=replace(APPLIED, enforced=False)))
    assert next(status_lines(status, NOW)) == "audit mode    what would be denied is let through"
