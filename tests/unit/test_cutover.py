"""A commit that can go back: rehearsed, armed, confirmed, and rolled back on demand."""

import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from msgspec.structs import replace

from reyes.config import FollowerConfig
from reyes.cutover import BlamedError, UnhealthyError
from reyes.errors import ConfigError, KernelError
from reyes.net import Family
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.names import set_family
from reyes.netfilter.plan import FilterTable, RestoreTable
from reyes.removal import remove
from reyes.rollback import is_held
from reyes.ruleset import Content, PrefixList, decode
from reyes.settling import MEMBERS_CHECK_SECONDS
from reyes.state import Hold, KeptGeneration, State
from tests.commits import MODES, rule_of, spoil, state
from tests.fakes.memory_kernel import MemoryKernel
from tests.machine import NOW, Machine
from tests.worlds import document, small_world


def altered(*excluded: str) -> Content:
    """The small world, with other rules for the host."""
    return replace(small_world(), excluded_group_names=excluded)


def opened_to(network: str) -> Content:
    """The small world, with a prefix list of other networks."""
    content = small_world()
    lists = (PrefixList(id="pl-0000000a", cidrs=(network, "203.0.113.0/24")),)
    regions = tuple(
        replace(region, prefix_lists=lists) if region.prefix_lists else region
        for region in content.regions
    )
    return replace(content, regions=regions)


def advanced(machine: Machine, *excluded: str) -> None:
    """The next ruleset arrives a minute later."""
    machine.clock.time += 60
    machine.publish(int(machine.clock.time), altered(*excluded))


def about_to_change() -> tuple[Machine, list[str]]:
    """A host whose next ruleset is there, and the rules that it has."""
    machine = Machine()
    machine.run()
    first = state(machine.kernel)[0]
    advanced(machine, "db")
    return machine, first


def two_generations() -> tuple[Machine, list[str]]:
    machine, first = about_to_change()
    machine.run()
    return machine, first


def test_rules_are_rehearsed_then_armed_then_confirmed() -> None:
    machine = Machine()
    machine.run()
    assert machine.guard.asked == ["rehearse", "arm", "confirm", "disarm"]


def test_the_armed_way_back_leads_back() -> None:
    machine, first = two_generations()
    assert state(machine.kernel)[0] != first
    assert machine.guard.go_back
    machine.guard.go_back()
    assert state(machine.kernel)[0] == first


def test_nobody_is_asked_where_no_rule_changes() -> None:
    machine = Machine()
    machine.run()
    machine.guard.asked.clear()
    machine.run()
    (name,) = (one for one in machine.kernel.sets if one.startswith("r4:web:"))
    machine.kernel.sets[name].members.clear()
    assert machine.run() == "repaired"
    assert machine.guard.asked == []


def test_a_repair_is_not_on_trial() -> None:
    machine = Machine()
    machine.run()
    right = state(machine.kernel)[0]
    spoil(machine.kernel, "-A reyes-drop -j ACCEPT")
    machine.guard.finds = "trouble"
    machine.guard.asked.clear()
    assert machine.run() == "repaired"
    assert machine.guard.asked == []
    assert machine.notebook.state.unhealthy is None
    assert state(machine.kernel)[0] == right


def test_what_the_rehearsal_refuses_is_never_tried_live() -> None:
    machine = Machine()
    machine.guard.refuses = True
    before = state(machine.kernel)
    with pytest.raises(KernelError, match="rehearsal"):
        machine.run()
    assert machine.kernel.executed == []
    assert state(machine.kernel) == before
    assert machine.notebook.state.applied is None


def test_a_kernel_that_refuses_ends_disarmed() -> None:
    machine = Machine()
    machine.kernel.refuses = lambda step: isinstance(step, RestoreTable)
    with pytest.raises(KernelError):
        machine.run()
    assert machine.guard.asked == ["rehearse", "arm", "disarm"]


def test_a_host_that_loses_its_health_gets_its_rules_back_and_tries_no_second_time() -> None:
    machine = Machine()
    machine.run()
    advanced(machine, "db")
    rules = state(machine.kernel)[0]
    machine.guard.finds = "10.0.0.2:22 does not answer any more"
    for _ in range(2):
        with pytest.raises(UnhealthyError):
            machine.run()
        assert state(machine.kernel)[0] == rules
    assert machine.guard.asked.count("confirm") == 2
    machine.guard.finds = None
    with pytest.raises(BlamedError, match="not tried again"):
        machine.run()
    assert machine.run(force=True) == "applied"
    assert machine.notebook.state.unhealthy is None


def refuse(*_: object) -> None:
    raise KernelError("somebody holds the xtables lock")


def cannot(*_: object) -> None:
    raise ConfigError("cannot start iptables-restore: out of memory")


@pytest.mark.parametrize("refuse", [refuse, cannot])
@pytest.mark.parametrize("confirm", [False, True])
def test_blamed_rules_that_stand_because_the_way_back_was_refused_do_not_stay(
    confirm: bool, refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, first = about_to_change()
    machine.guard.finds = "it was not confirmed"
    with monkeypatch.context() as patch:
        patch.setattr(machine.kernel, "revert", refuse)
        with pytest.raises(UnhealthyError, match="not confirmed, and the way back is refused"):
            machine.follower.commit(machine.prepare(), machine.guard, confirm=confirm)
    assert state(machine.kernel)[0] != first
    machine.guard.finds = None
    with pytest.raises(BlamedError, match="not tried again"):
        machine.run()
    assert state(machine.kernel)[0] == first


@pytest.mark.parametrize("way_back", [None, refuse])
def test_rules_that_stand_unanswered_do_not_stay(
    way_back: Callable[..., None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, first = about_to_change()
    with monkeypatch.context() as patch:
        patch.setattr(machine.guard, "trouble", lambda: sys.exit(1))
        patch.setattr(machine.kernel, "revert", way_back or (lambda *_: None))
        with pytest.raises(SystemExit):
            machine.follower.commit(machine.prepare(), machine.guard, confirm=True)
    assert state(machine.kernel)[0] != first
    with pytest.raises(BlamedError, match="not tried again"):
        machine.run()
    assert state(machine.kernel)[0] == first


@pytest.mark.parametrize("refuse", [refuse, cannot])
def test_a_way_back_that_is_refused_does_not_hide_what_went_wrong(
    refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, _ = about_to_change()
    monkeypatch.setattr(machine.guard, "trouble", lambda: sys.exit(1))
    monkeypatch.setattr(machine.kernel, "revert", refuse)
    with pytest.raises(SystemExit):
        machine.run()


def test_a_way_back_that_is_refused_once_costs_nobody_a_blame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, first = about_to_change()
    machine.guard.finds, machine.guard.blameless = "s3 does not answer", True
    revert, refusals = machine.kernel.revert, [None]

    def refused_once(*way: Any) -> None:
        if refusals:
            refuse(refusals.pop())
        revert(*way)

    monkeypatch.setattr(machine.kernel, "revert", refused_once)
    with pytest.raises(KernelError, match="neither with the rules before"):
        machine.run()
    assert machine.notebook.state.unhealthy is None
    assert state(machine.kernel)[0] == first


def fails(*_: object, **__: object) -> None:
    raise ConfigError("the disk is full")


def fails_to_hold(which: KeptGeneration, _: object) -> None:
    if which == "held":
        fails()


@pytest.mark.parametrize(("way", "failing"), [("save", fails), ("keep_generation", fails_to_hold)])
def test_a_verdict_is_told_though_it_cannot_be_remembered(
    way: str, failing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, first = two_generations()
    second, previous = state(machine.kernel)[0], machine.notebook.previous
    advanced(machine, "web")
    prepared = machine.prepare()
    machine.guard.finds = "trouble"
    monkeypatch.setattr(machine.notebook, way, failing)
    with pytest.raises(UnhealthyError, match="trouble"):
        machine.follower.commit(prepared, machine.guard)
    assert state(machine.kernel)[0] == second != first
    assert machine.notebook.previous == previous


def test_rules_are_blamed_though_the_members_before_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, first = about_to_change()
    prepared = machine.prepare()
    with monkeypatch.context() as patch:

        def trouble() -> str:
            patch.setattr(machine.kernel, "read_members", refuse)
            return "trouble"

        patch.setattr(machine.guard, "trouble", trouble)
        with pytest.raises(UnhealthyError, match="trouble"):
            machine.follower.commit(prepared, machine.guard)
    with pytest.raises(BlamedError, match="not tried again"):
        machine.run()
    assert state(machine.kernel)[0] == first


def blamed() -> tuple[Machine, list[str]]:
    machine, first = about_to_change()
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError):
        machine.run()
    machine.guard.finds = None
    return machine, first


@pytest.mark.parametrize("written", ["save", "end_trial"])
def test_blamed_rules_that_are_forced_stay_only_if_the_blame_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    machine, first = blamed()
    with monkeypatch.context() as patch:
        patch.setattr(machine.notebook, written, fails)
        with pytest.raises(ConfigError, match="disk is full"):
            machine.run(force=True)
    assert state(machine.kernel)[0] == first
    with pytest.raises(BlamedError, match="not tried again"):
        machine.run()
    with monkeypatch.context() as patch:
        patch.setattr(machine.notebook, "keep_settled", fails)
        assert machine.run(force=True) == "applied"
    second = state(machine.kernel)[0]
    assert machine.run() == "unchanged"
    assert state(machine.kernel)[0] == second != first


@pytest.mark.parametrize("written", ["save", "end_trial"])
def test_a_hold_that_was_forced_open_stays_so_only_if_that_is_remembered(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    machine, first = two_generations()
    second = state(machine.kernel)[0]
    machine.roll_back()
    with monkeypatch.context() as patch:
        patch.setattr(machine.notebook, written, fails)
        with pytest.raises(ConfigError, match="disk is full"):
            machine.run(force=True)
    assert state(machine.kernel)[0] == first
    assert machine.run() == "held"
    with monkeypatch.context() as patch:
        patch.setattr(machine.notebook, "keep_settled", fails)
        assert machine.run(force=True) == "applied"
    assert machine.run() == "unchanged"
    assert state(machine.kernel)[0] == second


def test_rules_that_were_agreed_to_stay_though_nothing_more_could_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, first = about_to_change()
    prepared = machine.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(machine.notebook, "keep_settled", fails)
        assert machine.follower.commit(prepared, machine.guard, confirm=True) == "applied"
    assert machine.run() == "unchanged"
    assert state(machine.kernel)[0] != first


def test_other_rules_than_blamed_ones_stay_though_nothing_could_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, first = blamed()
    machine.config = replace(machine.config, follower=FollowerConfig(denied="reject"))
    prepared = machine.prepare()
    monkeypatch.setattr(machine.notebook, "save", fails)
    assert machine.follower.commit(prepared, machine.guard) == "applied"
    assert state(machine.kernel)[0] != first


def test_what_stands_instead_of_blamed_rules_is_repaired_whatever_the_configuration() -> None:
    machine, first = blamed()
    machine.config = replace(machine.config, follower=FollowerConfig(denied="reject"))
    spoil(machine.kernel, "-A reyes-drop -j ACCEPT")
    assert repair(machine) == "held anew"
    assert state(machine.kernel)[0] == first


def test_a_no_is_remembered() -> None:
    machine, first = about_to_change()
    machine.guard.finds = "it was not confirmed"
    with pytest.raises(UnhealthyError, match="not confirmed"):
        machine.follower.commit(machine.prepare(), machine.guard, confirm=True)
    machine.guard.finds = None
    with pytest.raises(BlamedError, match="not tried again"):
        machine.run()
    assert state(machine.kernel)[0] == first


def test_other_rules_are_tried_after_unhealthy_ones() -> None:
    machine = Machine()
    machine.run()
    advanced(machine, "db")
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError):
        machine.run()
    machine.guard.finds = None
    machine.publish(int(machine.clock.time) + 1, altered("web"))
    assert machine.run() == "applied"
    rules = state(machine.kernel)[0]
    advanced(machine, "db")
    machine.guard.finds = "trouble"
    for _ in range(2):
        with pytest.raises(UnhealthyError):
            machine.run()
        assert state(machine.kernel)[0] == rules


def test_a_rollback_brings_the_generation_before_back_and_holds_it() -> None:
    machine, first = two_generations()
    machine.roll_back()
    assert state(machine.kernel)[0] == first
    assert machine.run() == "held"
    assert state(machine.kernel)[0] == first


def test_what_is_held_is_repaired() -> None:
    machine, first = two_generations()
    machine.roll_back()
    spoil(machine.kernel, rule_of(machine.kernel, "tcp 5432").replace("-A", "-D", 1))
    assert machine.run() == "held anew"
    assert state(machine.kernel)[0] == first


def test_a_hold_ends_at_its_time_or_with_another_ruleset() -> None:
    machine = Machine()
    machine.run()
    advanced(machine, "db")
    machine.run()
    machine.roll_back(until=int(machine.clock.time) + 10)
    assert machine.run() == "held"
    machine.clock.time += 10
    assert machine.run() == "applied"
    machine.roll_back()
    advanced(machine, "web")
    assert machine.run() == "applied"
    assert machine.notebook.state.hold is None


OPENED = (":reyes-drop - [0:0]", "-I reyes-ingress 1 -j RETURN", "-D INPUT -j reyes-input")
"""What somebody may do to our rules."""


@pytest.mark.parametrize("opened", OPENED)
def test_what_somebody_made_of_the_rules_is_nothing_to_go_back_to(opened: str) -> None:
    machine, first = two_generations()
    spoil(machine.kernel, opened)
    advanced(machine, "web")
    assert machine.run() == "applied"
    for _ in range(2):
        machine.roll_back()
        assert state(machine.kernel)[0] == first
        spoil(machine.kernel, opened)


@pytest.mark.parametrize("opened", OPENED)
def test_what_somebody_made_of_held_rules_is_nothing_to_go_back_to(opened: str) -> None:
    machine, first = two_generations()
    machine.roll_back()
    spoil(machine.kernel, opened)
    advanced(machine, "web")
    assert machine.run() == "applied"
    machine.roll_back()
    assert state(machine.kernel)[0] == first


@pytest.mark.parametrize("opened", OPENED)
def test_rules_are_not_blamed_for_what_somebody_made_of_those_before(opened: str) -> None:
    machine = Machine()
    machine.run()
    spoil(machine.kernel, opened)
    advanced(machine, "web")
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError) as caught:
        machine.run()
    assert "nothing better" in str(caught.value.hint)
    assert (machine.notebook.held, machine.notebook.trial) == (None, None)
    machine.guard.finds = None
    assert machine.run() == "applied"


def test_rules_of_others_cost_nobody_the_way_back() -> None:
    machine, first = about_to_change()
    spoil(machine.kernel, "-A INPUT -s 192.0.2.1 -j ACCEPT")
    beside = state(machine.kernel)[0]
    assert machine.run() == "applied"
    machine.roll_back()
    assert state(machine.kernel)[0] == beside != first


def test_a_host_without_a_good_sight_keeps_its_way_back() -> None:
    machine = Machine()
    machine.run()
    first = state(machine.kernel)[0]
    machine.notebook.calm = None
    advanced(machine, "db")
    machine.run()
    machine.roll_back()
    assert state(machine.kernel)[0] == first


def test_rules_are_not_blamed_where_nobody_knows_those_before_and_the_jump_is_gone() -> None:
    machine = Machine()
    machine.run()
    machine.notebook.calm = None
    spoil(machine.kernel, "-D INPUT -j reyes-input")
    advanced(machine, "web")
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError):
        machine.run()
    assert machine.notebook.held is None
    assert machine.notebook.state.unhealthy is None


def test_what_is_held_is_a_generation_to_come_back_to() -> None:
    machine, first = two_generations()
    machine.roll_back()
    advanced(machine, "web")
    assert machine.run() == "applied"
    machine.roll_back()
    assert state(machine.kernel)[0] == first


@pytest.mark.parametrize(
    ("later", "other", "until", "holds"),
    [
        (0, False, 0, True),
        (0, True, 0, True),
        (1, False, 0, True),
        (1, True, 0, False),
        (0, False, NOW + 1, True),
        (0, False, NOW, False),
    ],
)
def test_a_hold_is_against_what_is_no_later_or_says_the_same(
    later: int, other: bool, until: int, holds: bool
) -> None:
    held = decode(document(NOW))
    serial = held.header.serial
    hold = Hold(serial=serial, content_sha256=held.content_sha256, until=until)
    ruleset = decode(document(NOW, altered("db") if other else None, serial=serial + later))
    assert is_held(hold, ruleset, NOW) is holds
    assert not is_held(None, ruleset, NOW)


def test_force_ends_a_hold() -> None:
    machine, first = two_generations()
    machine.roll_back()
    assert machine.run() == "held"
    assert machine.run(force=True) == "applied"
    assert state(machine.kernel)[0] != first
    assert machine.run() == "unchanged"


def test_a_hold_that_has_ended_is_nothing_to_go_back_to() -> None:
    machine, _ = two_generations()
    machine.roll_back()
    assert machine.run(force=True) == "applied"
    machine.config = replace(machine.config, follower=FollowerConfig(denied="reject"))
    before, prepared = state(machine.kernel), machine.prepare()
    assert prepared.plan.steps
    assert machine.follower.commit(prepared, None) == "unchanged"
    assert state(machine.kernel) == before


def test_without_a_generation_there_is_no_way_back() -> None:
    with pytest.raises(ConfigError):
        Machine().roll_back()


def test_who_forgot_what_was_accepted_is_told_that_there_is_no_way_back() -> None:
    machine, _ = two_generations()
    second = state(machine.kernel)
    machine.notebook.state = State()
    with pytest.raises(ConfigError, match="no earlier rules"):
        machine.roll_back()
    assert state(machine.kernel) == second


def test_a_rollback_that_cannot_keep_what_it_brought_back_holds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, _ = two_generations()
    monkeypatch.setattr(machine.notebook, "keep_generation", fails)
    with pytest.raises(ConfigError, match="disk is full"):
        machine.roll_back()
    assert machine.notebook.state.hold is None


def test_a_repair_in_between_does_not_cost_the_way_back() -> None:
    machine, first = two_generations()
    spoil(machine.kernel, "-A reyes-drop -j ACCEPT")
    assert machine.run() == "repaired"
    machine.roll_back()
    assert state(machine.kernel)[0] == first


def test_a_commit_that_fails_in_between_does_not_cost_the_way_back() -> None:
    machine, first = two_generations()
    advanced(machine, "web")
    machine.kernel.refuses = lambda step: isinstance(step, RestoreTable)
    with pytest.raises(KernelError):
        machine.run()
    machine.kernel.refuses = lambda _: False
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError):
        machine.run()
    machine.roll_back()
    assert state(machine.kernel)[0] == first


def test_rules_that_fail_after_a_rollback_leave_what_is_held_as_it_is_remembered() -> None:
    machine, _ = two_generations()
    machine.roll_back()
    held = machine.notebook.held
    assert held
    assert held.members
    for one in machine.kernel.sets.values():
        one.members = {f"192.0.2.{number}": "" for number in range(len(one.members))}
    advanced(machine, "web")
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError):
        machine.run()
    assert machine.notebook.held == held


def test_what_is_held_comes_back_after_a_removal_too() -> None:
    machine, first = two_generations()
    machine.roll_back()
    remove(machine.notebook, [machine.kernel])
    assert machine.run() == "held anew"
    assert state(machine.kernel)[0] == first


@pytest.mark.parametrize("mode", MODES)
def test_a_rollback_to_before_the_first_rules_needs_no_ipset(
    mode: FilterTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(filter_table=mode)
    before = state(machine.kernel)[0]
    machine.run()
    read = machine.kernel.read

    def read_without_ipset(*, strict: bool = True) -> LiveKernel:
        if strict:
            cannot()
        return replace(read(), sets={})

    # As where rules of others name a set: then ours go back without them.
    machine.kernel.refuses = lambda step: isinstance(step, RestoreTable) and step.flush
    with monkeypatch.context() as patch:
        patch.setattr(machine.kernel, "read", read_without_ipset)
        patch.setattr(machine.kernel, "read_members", cannot)
        machine.roll_back(force=True)
    assert state(machine.kernel)[0] == before
    assert machine.notebook.state.hold


def test_members_that_only_the_generation_before_remembers_come_back() -> None:
    machine, _ = two_generations()
    before = machine.notebook.previous
    assert before
    assert before.members.keys() == before.referenced_sets
    for name in before.referenced_sets:
        one = machine.kernel.sets[name]
        one.members = {f"192.0.2.{number}": "" for number in range(len(one.members))}
    machine.roll_back()
    assert machine.run() == "held anew"
    assert machine.kernel.read_members(before.referenced_sets) == before.members


def test_a_second_rollback_changes_nothing_but_the_end_of_the_hold() -> None:
    machine, first = two_generations()
    machine.roll_back(until=int(machine.clock.time) + 10)
    kept = machine.notebook.held
    spoil(machine.kernel, rule_of(machine.kernel, "tcp 5432").replace("-A", "-D", 1))
    for until in (0, int(machine.clock.time) + 20):
        machine.roll_back(until=until)
        assert state(machine.kernel)[0] == first
        assert machine.notebook.state.hold
        assert machine.notebook.state.hold.until == until
        assert machine.notebook.held == kept
    assert machine.run() == "held"


def test_a_rollback_to_before_the_first_rules_takes_force() -> None:
    machine = Machine()
    machine.run()
    in_force = state(machine.kernel)
    with pytest.raises(ConfigError, match="would leave this host with none"):
        machine.roll_back()
    assert state(machine.kernel) == in_force
    assert machine.notebook.state.hold is None
    before = machine.notebook.previous
    for force in (True, False):  # what holds already may be said again, also after a trial
        machine.roll_back(force=force, on_trial=before)
        assert not machine.kernel.read().judges


def test_a_boot_that_fails_has_the_newest_rules_that_were_good() -> None:
    machine, _ = two_generations()
    second = state(machine.kernel)[0]
    advanced(machine, "web")
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError):
        machine.run()  # blamed: what stood before is held
    machine.kernel = MemoryKernel()
    machine.follower.return_to_earlier(machine.host(), machine.kernel.read())
    assert state(machine.kernel)[0] == second
    assert machine.notebook.previous != machine.notebook.held


def test_a_boot_that_fails_has_the_rules_before_and_none_of_a_hold_that_ended() -> None:
    machine, _ = two_generations()
    machine.roll_back()
    advanced(machine, "web")
    machine.run()
    third = state(machine.kernel)[0]
    advanced(machine)
    machine.run()
    machine.kernel = MemoryKernel()
    machine.follower.return_to_earlier(machine.host(), machine.kernel.read())
    assert state(machine.kernel)[0] == third


def test_a_boot_that_fails_leaves_rules_that_are_in_force() -> None:
    machine, _ = two_generations()
    before = state(machine.kernel)
    machine.follower.return_to_earlier(machine.host(), machine.kernel.read())
    assert state(machine.kernel) == before


def test_a_boot_that_fails_brings_nothing_back_from_before_the_first_rules() -> None:
    machine = Machine(filter_table="exclusive")
    spoil(machine.kernel, "-A INPUT -s 192.0.2.1 -j ACCEPT")
    machine.run()
    machine.kernel = MemoryKernel()
    machine.follower.return_to_earlier(machine.host(), machine.kernel.read())
    assert machine.kernel.executed == []


def test_what_unhealthy_rules_replaced_is_what_stays() -> None:
    machine, first = about_to_change()
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError):
        machine.run()
    spoil(machine.kernel, "-A reyes-drop -j ACCEPT")
    with pytest.raises(BlamedError, match="not tried again"):
        machine.run()
    assert state(machine.kernel)[0] == first
    machine.kernel = MemoryKernel()
    with pytest.raises(UnhealthyError):
        machine.run()
    assert state(machine.kernel)[0] == first


def test_a_host_that_may_not_rehearse_keeps_its_way_back() -> None:
    machine, first = two_generations()
    advanced(machine, "web")
    machine.guard.forbids = True
    with pytest.raises(ConfigError):
        machine.run()
    machine.roll_back()
    assert state(machine.kernel)[0] == first


def test_a_first_commit_that_fails_leaves_no_way_back() -> None:
    machine = Machine()
    machine.guard.refuses = True
    with pytest.raises(KernelError):
        machine.run()
    assert machine.notebook.previous is None
    with pytest.raises(ConfigError, match="no earlier rules"):
        machine.roll_back()


def sets_of(machine: Machine) -> set[str]:
    return set(machine.kernel.sets)


def test_only_the_sets_of_two_generations_stay() -> None:
    machine = Machine()
    seen = []
    for number in range(4):
        machine.clock.time += 60
        machine.publish(int(machine.clock.time), opened_to(f"192.0.2.{number}"))
        assert machine.run() == "applied"
        live = machine.kernel.read()
        named = {name for table in live.tables for name in table.referenced_sets}
        seen.append(named)
        assert sets_of(machine) == named.union(*seen[-2:])
    assert len(set.union(*seen)) > len(sets_of(machine))


def test_what_a_dead_run_left_behind_is_destroyed_though_nothing_else_is_to_do() -> None:
    machine = Machine()
    machine.run()
    right = sets_of(machine)
    machine.kernel.ipset("create r4:left:0123456789abcdefghij hash:net family inet maxelem 1\n")
    assert machine.run() == "unchanged"
    assert sets_of(machine) == right


def repair(machine: Machine) -> str:
    prepared = machine.follower.prepare_repair(machine.host(), machine.kernel.read())
    return machine.follower.commit(prepared, None) if prepared else "unchanged"


def test_without_a_new_ruleset_what_is_in_force_is_repaired() -> None:
    machine = Machine()
    machine.run()
    right = state(machine.kernel)
    assert repair(machine) == "unchanged"
    spoil(machine.kernel, "-A reyes-drop -j ACCEPT")
    machine.guard.asked.clear()
    assert repair(machine) == "repaired"
    assert state(machine.kernel) == right
    assert machine.guard.asked == []
    for one in machine.kernel.sets.values():
        one.members = {f"192.0.2.{number}": "" for number in range(len(one.members))}
    assert repair(machine) == "unchanged"
    machine.clock.time += MEMBERS_CHECK_SECONDS
    assert repair(machine) == "repaired"
    assert state(machine.kernel) == right


def test_without_a_new_ruleset_what_is_held_is_repaired() -> None:
    machine, first = two_generations()
    machine.roll_back()
    spoil(machine.kernel, "-A reyes-drop -j ACCEPT")
    assert repair(machine) == "held anew"
    assert state(machine.kernel)[0] == first


def test_rules_against_which_a_rollback_holds_are_no_good_sight() -> None:
    machine, first = two_generations()
    second = deepcopy(machine.kernel.tables)
    machine.roll_back()
    assert machine.run() == "held"
    machine.kernel.tables = second
    assert state(machine.kernel)[0] != first
    assert repair(machine) == "held anew"
    assert state(machine.kernel)[0] == first


def test_without_a_new_ruleset_blamed_rules_do_not_come_back() -> None:
    machine, first = about_to_change()
    machine.guard.finds = "trouble"
    with pytest.raises(UnhealthyError):
        machine.run()
    machine.guard.finds = None
    spoil(machine.kernel, "-A reyes-drop -j ACCEPT")
    with pytest.raises(BlamedError, match="not tried again"):
        repair(machine)
    assert state(machine.kernel)[0] == first
    remove(machine.notebook, [machine.kernel])
    assert repair(machine) == "unchanged"
    assert machine.kernel.sets == {}


def test_what_was_accepted_and_never_in_force_repairs_nothing() -> None:
    machine = Machine()
    machine.run()
    advanced(machine, "db")
    machine.guard.refuses = True
    with pytest.raises(KernelError):
        machine.run()
    machine.guard.refuses = False
    spoil(machine.kernel, "-A reyes-drop -j ACCEPT")
    before = state(machine.kernel)
    assert repair(machine) == "unchanged"
    assert state(machine.kernel) == before


def test_what_was_accepted_last_is_in_force_until_a_rollback_or_a_commit_that_fails() -> None:
    machine, _ = two_generations()
    assert machine.follower.settling.accepted_is_applied()
    machine.roll_back()
    assert not machine.follower.settling.accepted_is_applied()
    machine.run(force=True)
    assert machine.follower.settling.accepted_is_applied()
    advanced(machine, "web")
    machine.guard.refuses = True
    with pytest.raises(KernelError):
        machine.run()
    assert not machine.follower.settling.accepted_is_applied()


def test_a_rollback_is_armed() -> None:
    machine, first = two_generations()
    second = state(machine.kernel)[0]
    machine.guard.asked.clear()
    machine.roll_back()
    assert machine.guard.asked == ["arm", "disarm"]
    assert state(machine.kernel)[0] == first
    assert machine.guard.go_back
    machine.guard.go_back()
    assert state(machine.kernel)[0] == second


def test_a_rollback_that_the_kernel_refuses_holds_nothing() -> None:
    machine, _ = two_generations()
    second = state(machine.kernel)[0]
    machine.kernel.refuses = lambda step: isinstance(step, RestoreTable)
    with pytest.raises(KernelError):
        machine.roll_back()
    assert state(machine.kernel)[0] == second
    assert machine.notebook.state.hold is None
    machine.kernel.refuses = lambda _: False
    assert machine.run() == "unchanged"


def test_a_rollback_that_is_not_in_force_afterwards_has_failed() -> None:
    machine, _ = two_generations()
    second = state(machine.kernel)[0]
    restore = machine.kernel.restore

    def restore_half(family: Family, text: str, *, flush: bool = False) -> None:
        machine.kernel.restore = restore  # type: ignore[method-assign]  # for the way back
        first = next(line for line in text.splitlines() if line.startswith("-A "))
        restore(family, text.replace(f"{first}\n", "", 1), flush=flush)

    machine.kernel.restore = restore_half  # type: ignore[method-assign]  # once
    with pytest.raises(KernelError, match="that came back are not in force"):
        machine.roll_back()
    assert state(machine.kernel)[0] == second
    assert machine.notebook.state.hold is None


def test_what_came_after_a_rollback_to_before_the_first_rules_can_be_rolled_back() -> None:
    machine = Machine()
    before = state(machine.kernel)[0]
    machine.run()
    machine.roll_back(force=True)
    assert machine.run(force=True) == "applied"
    machine.roll_back(force=True)
    assert state(machine.kernel)[0] == before


def test_what_fails_after_a_rollback_to_before_the_first_rules_is_blamed() -> None:
    machine = Machine()
    machine.run()
    machine.roll_back(force=True)
    advanced(machine, "db")
    machine.guard.finds = "trouble"
    for _ in range(3):
        with pytest.raises(UnhealthyError):
            machine.run()
    assert machine.guard.asked.count("confirm") == 2


def test_a_forced_commit_that_is_refused_leaves_what_is_held() -> None:
    machine, first = two_generations()
    machine.roll_back()
    spoil(machine.kernel, "-A reyes-ingress -j ACCEPT")
    machine.guard.refuses = True
    with pytest.raises(KernelError):
        machine.follower.commit(machine.prepare(), machine.guard, force=True, confirm=True)
    assert machine.run() == "held anew"
    assert state(machine.kernel)[0] == first


def test_what_is_refused_before_the_question_is_told_whatever_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, _ = about_to_change()
    prepared = machine.prepare()
    save = machine.notebook.save

    def save_once(state: State) -> None:
        save(state)
        monkeypatch.setattr(machine.notebook, "save", fails)

    monkeypatch.setattr(machine.notebook, "save", save_once)
    machine.guard.refuses = True
    with pytest.raises(KernelError, match="rehearsal"):
        machine.follower.commit(prepared, machine.guard, confirm=True)


def test_what_is_refused_before_the_question_is_not_blamed() -> None:
    machine = Machine()
    machine.run()
    advanced(machine, "db")
    machine.guard.refuses = True
    with pytest.raises(KernelError, match="rehearsal"):
        machine.follower.commit(machine.prepare(), machine.guard, confirm=True)
    machine.guard.refuses = False
    assert machine.run() == "applied"


def test_a_no_to_a_repair_neither_holds_nor_remembers_what_somebody_made_of_the_rules() -> None:
    machine, first = two_generations()
    right = state(machine.kernel)[0]
    spoil(machine.kernel, "-A reyes-ingress -j ACCEPT")
    machine.guard.finds = "it was not confirmed"
    with pytest.raises(UnhealthyError):
        machine.follower.commit(machine.prepare(), machine.guard, confirm=True)
    assert machine.run() == "repaired"
    assert state(machine.kernel)[0] == right
    machine.roll_back()
    assert state(machine.kernel)[0] == first


def test_a_no_to_another_logging_does_not_blame_the_rules_in_force() -> None:
    machine, first = two_generations()
    second = state(machine.kernel)[0]
    machine.config = replace(machine.config, follower=FollowerConfig(log_drop=True))
    machine.guard.finds = "it was not confirmed"
    with pytest.raises(UnhealthyError):
        machine.follower.commit(machine.prepare(), machine.guard, confirm=True)
    assert state(machine.kernel)[0] == second
    assert machine.notebook.state.unhealthy is None
    assert machine.run() == "applied"
    machine.roll_back()
    assert state(machine.kernel)[0] == first


def test_a_repair_that_was_agreed_to_does_not_cost_the_way_back() -> None:
    machine, first = two_generations()
    spoil(machine.kernel, "-A reyes-ingress -j ACCEPT")
    prepared = machine.prepare()
    assert machine.follower.commit(prepared, machine.guard, confirm=True) == "repaired"
    machine.roll_back()
    assert state(machine.kernel)[0] == first


def test_a_repair_that_is_cut_off_at_the_question_is_not_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine()
    machine.run()
    right = state(machine.kernel)[0]
    spoil(machine.kernel, "-A reyes-ingress -j ACCEPT")
    with monkeypatch.context() as patch:
        patch.setattr(machine.guard, "trouble", lambda: sys.exit(1))
        with pytest.raises(SystemExit):
            machine.follower.commit(machine.prepare(), machine.guard, confirm=True)
    assert machine.run() == "repaired"
    assert state(machine.kernel)[0] == right


def test_a_set_that_is_gone_and_forgotten_costs_only_its_group_the_way_in() -> None:
    machine, first = two_generations()
    machine.roll_back()
    held = machine.notebook.held
    assert held
    lost = min(held.referenced_sets - {e.name for e in machine.prepare().dataplane.sets})
    kept = {name: own for name, own in held.members.items() if name != lost}
    machine.notebook.held = replace(held, members=kept)
    machine.kernel = MemoryKernel()
    assert machine.run() == "held anew"
    assert state(machine.kernel)[0] == first
    assert machine.kernel.read_members()[lost] == ()


def test_members_of_what_is_held_are_repaired(caplog: pytest.LogCaptureFixture) -> None:
    machine, _ = two_generations()
    machine.roll_back()
    right = state(machine.kernel)
    for one in machine.kernel.sets.values():
        one.members.clear()
    assert machine.run() == "held anew"
    assert state(machine.kernel) == right
    assert "nobody remembers" not in caplog.text


def test_members_of_what_a_rollback_brought_back_are_compared_at_once() -> None:
    machine = Machine()
    machine.run()
    machine.clock.time += 60
    machine.publish(int(machine.clock.time), opened_to("192.0.2.1"))
    assert machine.run() == "applied"
    assert machine.run() == "unchanged"
    (name,) = (one for one in machine.kernel.sets if one.startswith("r4:web:"))
    right = dict(machine.kernel.sets[name].members)
    machine.kernel.sets[name].members = {"192.0.2.1": ""}
    machine.roll_back()
    assert machine.run() == "held anew"
    assert machine.kernel.sets[name].members == right


def test_what_is_held_knows_the_members_of_sets_that_both_generations_name() -> None:
    machine = Machine()
    machine.run()
    machine.clock.time += 60
    machine.publish(int(machine.clock.time), opened_to("192.0.2.1"))
    machine.run()
    before = machine.notebook.previous
    assert before
    assert before.members.keys() < before.referenced_sets
    machine.roll_back()
    held = machine.notebook.held
    assert held
    assert held.members.keys() == before.referenced_sets


def test_a_rollback_goes_back_though_a_family_was_switched_off_meanwhile() -> None:
    machine = Machine(filtered_cidrs=("10.0.0.0/8", "::/0"))
    machine.run()
    first = state(machine.kernel)[0]
    advanced(machine, "db")
    machine.run()
    before = machine.notebook.previous
    assert before
    assert {set_family(name) for name in before.referenced_sets} == set(Family)
    machine.kernel = MemoryKernel([Family.V4])
    assert machine.run() == "repaired"
    machine.roll_back()
    assert state(machine.kernel)[0] == first[:1]


def test_members_that_somebody_changed_are_not_remembered() -> None:
    machine, _ = about_to_change()
    for one in machine.kernel.sets.values():
        one.members = {f"192.0.2.{number}": "" for number in range(len(one.members))}
    changed = machine.kernel.read_members()
    assert machine.run() == "applied"
    before = machine.notebook.previous
    assert before
    assert before.referenced_sets == changed.keys()
    assert before.members == {}


def test_members_of_what_is_held_are_compared_once_an_hour() -> None:
    machine, _ = two_generations()
    machine.roll_back()
    right = state(machine.kernel)
    assert machine.run() == "held"
    for one in machine.kernel.sets.values():
        one.members = {f"192.0.2.{number}": "" for number in range(len(one.members))}
    assert state(machine.kernel) != right
    assert machine.run() == "held"
    assert state(machine.kernel) != right
    for is_right in (False, True):
        machine.clock.time += MEMBERS_CHECK_SECONDS / 2
        assert machine.run() == ("held anew" if is_right else "held")
        assert (state(machine.kernel) == right) is is_right


def test_who_forgot_what_is_held_says_so_and_changes_nothing() -> None:
    machine, _ = two_generations()
    machine.roll_back()
    machine.notebook.held = None
    before = machine.kernel.save(Family.V4)
    for _ in range(2):
        with pytest.raises(ConfigError, match="not remembered any more"):
            machine.run()
    assert machine.kernel.save(Family.V4) == before
