"""What monitoring is told about a host, and how bad it is."""

from typing import Any

import pytest
from msgspec.structs import replace

from reyes.check import (
    EXIT_CODES,
    Limits,
    Problem,
    drift_problems,
    jump_problems,
    status_problems,
    verdict,
    verdict_line,
)
from reyes.net import Family
from reyes.state import Hold
from reyes.status import Run, Status
from reyes.trust import KEY_WARNING
from tests.machine import NOW, Machine
from tests.statuses import GOOD

LIMITS = Limits(warning=900, critical=2700)
FOREVER = 10**9


def problems(status: Status | None, now: int = NOW) -> list[tuple[str, str]]:
    return [(p.severity, p.message) for p in status_problems(status, now, LIMITS)]


def failed(exit_code: int, **more: Any) -> Status:
    run = Run(at=NOW, seconds=0.2, exit_code=exit_code, outcome="failed", message="because")
    return replace(GOOD, run=run, **more)


def lasting(status: Status) -> Status:
    """The same with a ruleset that does not expire soon."""
    assert status.ruleset
    return replace(status, ruleset=replace(status.ruleset, not_after=NOW + FOREVER))


def test_a_host_that_is_well_has_no_problem() -> None:
    assert problems(GOOD) == []
    assert verdict([]) == "ok"
    said = verdict_line([], GOOD, NOW + 60)
    assert said == f"OK: unchanged 60 seconds ago, ruleset {NOW}000, 12 rules, 0 members"


def test_a_failure_that_is_no_problem_yet_tells_of_the_last_success() -> None:
    said = verdict_line([], failed(75, last_success=NOW - 60), NOW + 30)
    assert said.startswith("OK: failed 30 seconds ago, last success 90 seconds ago, ruleset ")


def test_a_host_without_status_has_no_follower() -> None:
    assert problems(None) == [("critical", "no pass is on record: does a follower run?")]


@pytest.mark.parametrize(
    ("age", "severity"),
    [(899, None), (900, "warning"), (2699, "warning"), (2700, "critical")],
)
def test_passes_that_stopped_are_noticed(age: int, severity: str | None) -> None:
    found = problems(lasting(GOOD), NOW + age)
    assert [s for s, _ in found] == ([severity] if severity else [])
    assert all(message.startswith("the last pass was ") for _, message in found)


@pytest.mark.parametrize(("age", "severity"), [(599, None), (600, "critical"), (900, "critical")])
def test_what_is_critical_does_not_wait_for_the_warning(age: int, severity: str | None) -> None:
    found = status_problems(lasting(GOOD), NOW + age, Limits(warning=900, critical=600))
    assert [problem.severity for problem in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("ahead", "told"), [(120, False), (121, True)])
def test_a_pass_that_is_to_come_says_nothing_about_the_last_one(ahead: int, told: bool) -> None:
    (*found,) = status_problems(lasting(GOOD), NOW - ahead, Limits())
    assert [problem.severity for problem in found] == ["warning"] * told
    assert all("which is to come" in problem.message for problem in found)


@pytest.mark.parametrize(
    ("exit_code", "severity"),
    [
        (1, "critical"),
        (20, "critical"),
        (21, "critical"),
        (22, "critical"),
        (23, "warning"),
        (24, "warning"),
        (25, "critical"),
        (78, "critical"),
    ],
)
def test_a_failed_pass_is_a_problem_by_its_exit_code(exit_code: int, severity: str) -> None:
    expected = f"the last pass failed with exit code {exit_code}: because"
    assert problems(failed(exit_code)) == [(severity, expected)]


@pytest.mark.parametrize(
    ("age", "severity"), [(0, None), (899, None), (900, "warning"), (2700, "critical")]
)
def test_a_source_that_does_not_answer_is_one_only_when_it_lasts(
    age: int, severity: str | None
) -> None:
    found = problems(lasting(failed(75, last_success=NOW - age)))
    assert [s for s, _ in found] == ([severity] if severity else [])


def test_a_host_that_never_succeeded_is_one() -> None:
    found = problems(failed(75, last_success=None))
    assert found == [("warning", "no pass has succeeded yet: because")]
    _, never = problems(failed(25, last_success=None))
    assert never == ("warning", "no pass has succeeded yet")


@pytest.mark.parametrize(
    ("left", "severity"), [(900, None), (899, "warning"), (0, "warning"), (-1, "critical")]
)
def test_a_ruleset_that_ages_is_noticed_before_and_after_its_end(
    left: int, severity: str | None
) -> None:
    assert GOOD.ruleset
    ruleset = replace(GOOD.ruleset, generated_at=NOW + left - 3600, not_after=NOW + left)
    found = problems(replace(GOOD, ruleset=ruleset))
    assert [s for s, _ in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("left", "warned"), [(KEY_WARNING, False), (KEY_WARNING - 1, True)])
def test_a_key_that_ends_soon_is_a_warning(left: int, warned: bool) -> None:
    assert GOOD.ruleset
    ruleset = replace(GOOD.ruleset, key_expires_at=NOW + left)
    found = problems(replace(GOOD, ruleset=ruleset))
    assert [s for s, _ in found] == (["warning"] if warned else [])


def test_what_an_operator_chose_is_a_warning() -> None:
    assert GOOD.applied
    hold = Hold(serial=7, content_sha256="c", until=0)
    audit = replace(GOOD, applied=replace(GOOD.applied, enforced=False))
    disabled = replace(GOOD, disabled=True, hold=hold)
    for status, begin in (
        (replace(GOOD, hold=hold), "a rollback holds until a ruleset with other content than 7's"),
        (audit, "audit mode: "),
        (disabled, "disabled: "),
    ):
        ((severity, message),) = problems(status)
        assert severity == "warning"
        assert message.startswith(begin)


def test_a_hold_that_is_over_is_no_problem() -> None:
    hold = Hold(serial=7, content_sha256="c", until=NOW)
    assert problems(replace(GOOD, hold=hold)) == []


def test_the_worst_counts_and_what_is_certain_counts_more() -> None:
    warning = Problem(severity="warning", message="w")
    unknown = Problem(severity="unknown", message="u")
    critical = Problem(severity="critical", message="c")
    assert verdict([warning]) == "warning"
    assert verdict([warning, unknown]) == "unknown"
    assert verdict([unknown, warning, critical]) == "critical"
    assert verdict_line([warning, unknown, critical], GOOD, NOW) == "CRITICAL: c; u; w"
    assert EXIT_CODES == {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}


def drift(machine: Machine) -> list[str]:
    prepared = machine.prepare()
    live, members = machine.kernel.read(), machine.kernel.read_members()
    found = list(drift_problems(prepared.dataplane, live, members, "shared"))
    assert {problem.severity for problem in found} == {"critical"}
    return [problem.message for problem in found]


def test_a_jump_that_is_not_first_is_said_once() -> None:
    machine = Machine()
    machine.run()
    assert list(jump_problems(machine.kernel.read())) == []
    machine.kernel.tables[Family.V6]["INPUT"].rules.insert(0, "-A INPUT -j ACCEPT")
    said = "the jump to reyes-input is not the first rule of INPUT (IPv6)"
    assert [problem.message for problem in jump_problems(machine.kernel.read())] == [said]
    assert drift(machine) == [said]


def test_rules_that_are_gone_are_counted_and_some_of_them_said() -> None:
    machine = Machine()
    machine.run()
    machine.kernel.tables[Family.V4]["reyes-ingress"].rules.clear()
    (message,) = drift(machine)
    assert message.startswith("drift: the kernel lacks (+) or has too much (-): + IPv4 reyes-ing")
    assert message.endswith(" more")


@pytest.mark.parametrize(
    ("labels", "end"), [(["r4:pl-"], "198.51.100.7"), (["r4:pl-", "r4:web"], " and 1 more")]
)
def test_only_what_is_not_said_is_counted(labels: list[str], end: str) -> None:
    machine = Machine()
    machine.run()
    for name, one in machine.kernel.sets.items():
        if name.startswith(tuple(labels)):
            one.members.clear()
    (message,) = drift(machine)
    assert message.count("+ r4:pl-0000: ") == 2
    assert message.endswith(end)


def test_a_member_that_is_gone_is_said() -> None:
    machine = Machine()
    machine.run()
    name = next(name for name in machine.kernel.sets if name.startswith("r4:web"))
    machine.kernel.sets[name].members.clear()
    (message,) = drift(machine)
    assert "+ r4:web: 10.2.0.10" in message


def test_a_difference_without_words_is_drift_all_the_same() -> None:
    machine = Machine()
    machine.run()
    (message,) = drift(machine)
    assert message == "drift: the kernel's rules are not those of the ruleset"
