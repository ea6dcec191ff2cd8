"""Rules that have not proved healthy: the next run finds that out, and goes back."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from reyes.errors import ConfigError, KernelError
from reyes.netfilter.live import Generation
from reyes.removal import remove
from tests.commits import state
from tests.fakes.memory_kernel import MemoryKernel
from tests.machine import Machine
from tests.unit.test_cutover import about_to_change, advanced, two_generations

Rules = list[str]


class Killed(BaseException):
    """The end of a follower and its switch, at once: neither goes back."""


def abandoned(monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Rules, Rules]:
    """A host with rules on trial, those before, and those on trial."""
    machine, before = about_to_change()
    advanced(machine, "web")

    def die() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(machine.guard, "trouble", die)
        patch.setattr(machine.kernel, "revert", lambda *_: None)
        with pytest.raises(Killed):
            machine.run()
    after = state(machine.kernel)[0]
    assert after != before
    return machine, before, after


def restart(machine: Machine) -> None:
    machine.kernel = MemoryKernel()


def test_it_goes_back_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine, before, after = abandoned(monkeypatch)
    assert machine.follower.return_from_trial(machine.host())
    assert state(machine.kernel)[0] == before
    assert "did not prove healthy" in caplog.text
    caplog.clear()
    assert machine.follower.return_from_trial(machine.host())
    assert not caplog.records
    assert machine.run() == "applied"
    assert state(machine.kernel)[0] == after
    assert not machine.follower.return_from_trial(machine.host())
    assert state(machine.kernel)[0] == after


def test_they_are_no_generation_for_a_rollback_until_they_are_proved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, before, _ = abandoned(monkeypatch)
    older = machine.notebook.previous
    machine.run()
    assert machine.notebook.previous != older
    machine.roll_back()
    assert state(machine.kernel)[0] == before


def failed() -> tuple[Machine, list[str]]:
    """A host whose third rules were live and not blamed, and its second ones, which are back."""
    machine, _ = two_generations()
    second = state(machine.kernel)[0]
    advanced(machine, "web")
    machine.guard.finds, machine.guard.blameless = "trouble", True
    with pytest.raises(KernelError, match="neither with the rules before"):
        machine.run()
    assert state(machine.kernel)[0] == second
    return machine, second


def test_a_rollback_after_a_failed_trial_stays_with_the_rules_before() -> None:
    machine, second = failed()
    machine.roll_back()
    assert state(machine.kernel)[0] == second
    assert machine.notebook.state.hold
    assert not machine.follower.return_from_trial(machine.host())


def test_a_refusal_after_a_failed_trial_does_not_cost_the_way_back_from_that() -> None:
    machine, second = failed()
    machine.guard.forbids = True
    with pytest.raises(ConfigError):
        machine.run()
    machine.roll_back()
    assert state(machine.kernel)[0] == second


def test_a_refusal_that_was_seen_before_the_lock_is_no_change_to_go_back_from() -> None:
    machine, first = two_generations()
    advanced(machine, "web")
    machine.guard.forbids = True
    with pytest.raises(ConfigError):
        machine.run()
    refused = machine.notebook.trial
    assert refused
    machine.notebook.end_trial(proved=False)
    machine.roll_back(on_trial=refused)
    assert state(machine.kernel)[0] == first


def test_a_rollback_from_a_trial_to_what_is_held_stays_there() -> None:
    machine, first = two_generations()
    machine.roll_back()
    advanced(machine, "web")
    machine.guard.finds, machine.guard.blameless = "trouble", True
    with pytest.raises(KernelError, match="neither with the rules before"):
        machine.run()
    machine.roll_back()
    assert state(machine.kernel)[0] == first


def test_a_boot_that_fails_has_the_rules_before_those_on_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, before, _ = abandoned(monkeypatch)
    machine.kernel = MemoryKernel()
    machine.follower.return_to_earlier(machine.host(), machine.kernel.read())
    assert state(machine.kernel)[0] == before


def test_what_is_published_may_be_the_rules_before(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, before, _ = abandoned(monkeypatch)
    advanced(machine)
    assert machine.run() == "unchanged"
    assert state(machine.kernel)[0] == before
    assert not machine.follower.return_from_trial(machine.host())


def test_after_a_restart_members_come_from_what_was_accepted_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, before, _ = abandoned(monkeypatch)
    kept = machine.notebook.trial
    assert kept
    assert kept.referenced_sets > kept.members.keys()
    members = machine.kernel.read_members(kept.referenced_sets)
    restart(machine)
    assert machine.follower.return_from_trial(machine.host())
    assert state(machine.kernel)[0] == before
    assert machine.kernel.read_members(kept.referenced_sets) == members


def restarted(machine: Machine, members: Mapping[str, tuple[str, ...]]) -> None:
    """Restart, with these members beside the rules before, and a damaged ruleset."""
    kept = machine.notebook.trial
    assert kept
    machine.notebook.trial = Generation(kept.kernel, members)
    machine.notebook.blob = b"damaged"
    restart(machine)
    assert machine.follower.return_from_trial(machine.host())


def test_a_return_with_all_members_at_hand_asks_nothing_of_what_was_accepted_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine, before, _ = abandoned(monkeypatch)
    assert machine.notebook.trial
    members = machine.kernel.read_members(machine.notebook.trial.referenced_sets)
    restarted(machine, members)
    assert state(machine.kernel)[0] == before
    assert machine.kernel.read_members(members) == members
    assert "what was accepted last" not in caplog.text


def test_members_that_nobody_remembers_let_nobody_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine, before, _ = abandoned(monkeypatch)
    assert machine.notebook.trial
    names = machine.notebook.trial.referenced_sets
    restarted(machine, {})
    assert state(machine.kernel)[0] == before
    assert not any(machine.kernel.read_members().values())
    for name in names:
        assert f"the set {name} is empty: nobody remembers its members" in caplog.text


def test_rules_that_are_not_remembered_as_proved_are_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, before = about_to_change()
    older = machine.notebook.previous

    def fails(*, proved: bool) -> None:  # noqa: ARG001 - whatever it is
        raise ConfigError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(machine.notebook, "end_trial", fails)
        with pytest.raises(ConfigError, match="disk is full"):
            machine.run()
    assert state(machine.kernel)[0] == before
    assert machine.notebook.previous == older
    assert machine.run() == "applied"


def test_what_is_removed_is_not_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, *_ = abandoned(monkeypatch)
    assert remove(machine.notebook, [machine.kernel]).found
    assert not machine.follower.return_from_trial(machine.host())
    assert not machine.kernel.read().judges


def test_a_way_back_that_is_refused_is_tried_by_each_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, before, after = abandoned(monkeypatch)

    def refuse(*_: object) -> None:
        raise KernelError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(machine.kernel, "execute", refuse)
        for _ in range(2):
            with pytest.raises(KernelError, match="refused"):
                machine.run()
    assert state(machine.kernel)[0] == after
    assert machine.follower.return_from_trial(machine.host())
    assert state(machine.kernel)[0] == before


def test_rules_on_trial_are_nothing_to_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, *_ = abandoned(monkeypatch)
    assert machine.follower.prepare_repair(machine.host(), machine.kernel.read()) is None


def test_a_blame_outlives_the_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked has not agreed where his run was killed."""
    machine, before, _ = abandoned(monkeypatch)
    machine.notebook.state = replace(
        machine.notebook.state, unhealthy=machine.prepare().fingerprint
    )
    assert machine.notebook.trial
    machine.notebook.held = machine.notebook.trial
    with pytest.raises(KernelError, match="not tried again"):
        machine.run()
    assert state(machine.kernel)[0] == before
