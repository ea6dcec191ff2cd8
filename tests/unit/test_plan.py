"""From a live kernel to a dataplane, and back: each plan is also carried out, in memory."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reyes.net import Family
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.ipset import create_text
from reyes.netfilter.live import JUMP
from reyes.netfilter.plan import (
    CommitPlan,
    CountSets,
    DestroySets,
    FilterTable,
    ReadTables,
    RestoreSets,
    RestoreTable,
    differing,
    plan_commit,
    plan_removal,
    table_text,
)
from reyes.netfilter.restore import rehearsal_text
from reyes.policy import resolve
from tests.commits import (
    BOTH_RULES,
    FOREIGN,
    MODES,
    V4,
    V6,
    WANTED,
    dataplane,
    foreign_part,
    in_force,
    kinds,
    rule_of,
    spoil,
    state,
    undo,
)
from tests.fakes.memory_kernel import MemoryKernel
from tests.strategies_worlds import WORLDS, World
from tests.worlds import (
    allow,
    tcp,
    verified,
)


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_kernel_gets_sets_then_a_count_then_rules_read_back(mode: FilterTable) -> None:
    plan = plan_commit(WANTED, MemoryKernel().read(), mode)
    sets, count, four, six, check = plan.steps
    assert sets == RestoreSets(create_text(WANTED.sets), tuple(s.name for s in WANTED.sets))
    assert count == CountSets(tuple((s.name, len(s.members)) for s in WANTED.sets))
    assert isinstance(four, RestoreTable)
    assert isinstance(six, RestoreTable)
    assert (four.family, six.family) == (V4, V6)
    assert four.flush == six.flush == (mode == "exclusive")
    assert check == ReadTables(WANTED.tables)


def test_the_payload_of_an_empty_kernel() -> None:
    live = MemoryKernel().read().tables[1]
    wanted = dataplane()
    lines = table_text(wanted.tables[1], live, "shared").splitlines()
    assert lines[:5] == [
        "*filter",
        *(f":reyes-{c} - [0:0]" for c in ("input", "ingress", "accept", "drop")),
    ]
    assert lines[5] == "-I INPUT 1 -j reyes-input"
    assert lines[-1] == "COMMIT"
    assert not [line for line in lines[6:-1] if not line.startswith("-A reyes-")]
    whole = table_text(wanted.tables[1], live, "exclusive").splitlines()
    assert whole[1:4] == [":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    assert JUMP in whole
    assert whole[9:] == lines[6:]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_in_force_needs_no_steps(mode: FilterTable) -> None:
    kernel = in_force(mode=mode)
    assert plan_commit(WANTED, kernel.read(), mode).steps == ()


def test_no_rules_and_no_sets_is_a_dataplane_too() -> None:
    bare = dataplane()
    kernel = in_force(bare)
    assert kernel.sets == {}
    assert plan_commit(bare, kernel.read(), "shared").steps == ()


def test_only_the_family_that_differs_is_restored() -> None:
    kernel = in_force()
    plan = plan_commit(
        dataplane(*BOTH_RULES, allow(tcp(22), "fd00:2::/64")), kernel.read(), "shared"
    )
    (restore, check) = plan.steps
    assert isinstance(restore, RestoreTable)
    assert restore.family is V6
    assert isinstance(check, ReadTables)
    assert [table.family for table in check.tables] == [V6]


def test_only_the_chains_that_differ_are_written() -> None:
    kernel = in_force()
    wanted = dataplane(*BOTH_RULES, allow(tcp(22), "10.4.0.0/16"))
    plan = plan_commit(wanted, kernel.read(), "shared")
    restore = plan.steps[0]
    assert isinstance(restore, RestoreTable)
    lines = restore.text.splitlines()
    ingress = [line for _, line in wanted.tables[0].rendered["reyes-ingress"]]
    assert lines == ["*filter", ":reyes-ingress - [0:0]", *ingress, "COMMIT"]
    kernel.execute(plan)
    assert plan_commit(wanted, kernel.read(), "shared").steps == ()


def test_a_rehearsal_tries_the_chains_that_differ_and_declares_the_others() -> None:
    wanted = dataplane(*BOTH_RULES, allow(tcp(22), "10.4.0.0/16")).tables[0]
    new = differing(wanted, in_force().read().tables[0])
    lines = rehearsal_text(wanted, new).splitlines()
    assert new == ("reyes-ingress",)
    assert lines == [
        "*filter",
        *(f":reyes-{c} - [0:0]" for c in ("input", "ingress", "accept", "drop")),
        JUMP,
        *(line for _, line in wanted.rendered["reyes-ingress"]),
        "COMMIT",
    ]


def test_a_host_without_ipv6_is_not_asked_for_it() -> None:
    kernel = MemoryKernel([V4])
    plan = plan_commit(WANTED, kernel.read(), "shared")
    assert [s.family for s in plan.steps if isinstance(s, RestoreTable)] == [V4]
    kernel.execute(plan)
    assert plan_commit(WANTED, kernel.read(), "shared").steps == ()


SPOILED_INPUTS = {
    "the jump is gone": "-D INPUT -j reyes-input",
    "the jump is there twice": "-A INPUT -j reyes-input",
    "the jump is not the first rule": "-I INPUT 1 -i docker1 -j ACCEPT",
    "the jump is a goto": "-D INPUT -j reyes-input\n-I INPUT 1 -g reyes-input",
    "the jump is conditional": "-D INPUT -j reyes-input\n-I INPUT 1 -i eth0 -j reyes-input",
    "it is all of that": "-I INPUT 1 -i lo -j ACCEPT\n-A INPUT -g reyes-input\n"
    "-A INPUT -j ACCEPT\n-A INPUT -s 10.9.0.1 -j reyes-input\n-A INPUT -j reyes-input",
}


@pytest.mark.parametrize("spoiling", SPOILED_INPUTS.values(), ids=SPOILED_INPUTS)
def test_the_jump_is_made_the_one_first_rule_again(spoiling: str) -> None:
    kernel = in_force(foreign=FOREIGN)
    spoil(kernel, spoiling)
    foreign = foreign_part(kernel)
    plan = plan_commit(WANTED, kernel.read(), "shared")
    assert kinds(plan) == [RestoreTable, ReadTables]
    spoiled = state(kernel)
    kernel.execute(plan)
    live = kernel.read()
    assert live.tables[0].jump_in_place
    assert live.tables[0].rules["INPUT"][0] == JUMP
    assert foreign_part(kernel) == foreign
    assert plan_commit(WANTED, live, "shared").steps == ()
    undo(kernel, plan)
    assert state(kernel) == spoiled


def removed(kernel: MemoryKernel) -> str:
    return rule_of(kernel, "tcp 443").replace("-A", "-D", 1)


def reordered(kernel: MemoryKernel) -> str:
    rule = rule_of(kernel, "tcp 443")
    return (
        rule.replace("-A", "-D", 1) + "\n" + rule.replace("-A reyes-ingress", "-I reyes-ingress 1")
    )


def repeated(kernel: MemoryKernel) -> str:
    return rule_of(kernel, "tcp 443")


SPOILED_CHAINS = {
    "a rule is gone": removed,
    "a rule stands elsewhere": reordered,
    "a rule is there twice": repeated,
    "a stranger's rule is in ours": lambda _: "-I reyes-ingress 1 -j ACCEPT",
    "a chain is empty": lambda _: ":reyes-drop - [0:0]",
    "a chain of ours is left over": lambda _: (
        ":reyes-eni-0000dead - [0:0]\n-A reyes-eni-0000dead -j DROP"
    ),
}


@pytest.mark.parametrize("spoiling", SPOILED_CHAINS.values(), ids=SPOILED_CHAINS)
@pytest.mark.parametrize("mode", MODES)
def test_our_chains_are_repaired(spoiling: object, mode: FilterTable) -> None:
    assert callable(spoiling)
    kernel = in_force(mode=mode)
    before = state(kernel)
    spoil(kernel, spoiling(kernel))
    spoiled = state(kernel)
    plan = plan_commit(WANTED, kernel.read(), mode)
    assert kinds(plan) == [RestoreTable, ReadTables]
    kernel.execute(plan)
    assert state(kernel) == before
    undo(kernel, plan)
    assert state(kernel) == spoiled


def test_an_interface_that_is_gone_takes_its_chain_along_and_undo_brings_it_back() -> None:
    wanted = dataplane(*BOTH_RULES, second=True)
    kernel = in_force(wanted)
    before = state(kernel)
    assert "reyes-eni-0000001a" in kernel.tables[V4]
    plan = plan_commit(WANTED, kernel.read(), "shared")
    kernel.execute(plan)
    assert "reyes-eni-0000001a" not in kernel.tables[V4]
    undo(kernel, plan)
    assert state(kernel) == before


def test_foreign_rules_survive_in_shared() -> None:
    bare = MemoryKernel()
    spoil(bare, FOREIGN.removeprefix("*filter\n").removesuffix("COMMIT\n").strip())
    foreign = foreign_part(bare)
    bare.execute(plan_commit(WANTED, bare.read(), "shared"))
    assert foreign_part(bare) == foreign
    assert foreign[0][:3] == ("-P INPUT DROP", "-P FORWARD DROP", "-N f2b-sshd")


def test_foreign_rules_are_discarded_in_exclusive_and_undo_brings_them_back() -> None:
    kernel = in_force(foreign=FOREIGN)
    before = state(kernel)
    plan = plan_commit(WANTED, kernel.read(), "exclusive")
    assert kinds(plan) == [RestoreTable, RestoreTable, ReadTables]
    kernel.execute(plan)
    assert foreign_part(kernel) == [(), ()]
    assert plan_commit(WANTED, kernel.read(), "exclusive").steps == ()
    undo(kernel, plan)
    assert state(kernel) == before


def test_a_way_into_our_chains_from_forward_is_discarded_in_exclusive() -> None:
    kernel = in_force(mode="exclusive")
    spoil(kernel, "-A FORWARD -j reyes-input")
    kernel.execute(plan_commit(WANTED, kernel.read(), "exclusive"))
    assert kernel.read().tables[0].rules.get("FORWARD", ()) == ()


def set_of(family: Family = V4, label: str = "web") -> str:
    (name,) = (s.name for s in WANTED.sets if s.family is family and f":{label}:" in s.name)
    return name


def test_a_set_that_rules_need_cannot_be_missing_but_one_not_yet_named_is_made() -> None:
    kernel = MemoryKernel()
    kernel.ipset(create_text(WANTED.sets[:1]))
    plan = plan_commit(WANTED, kernel.read(), "shared")
    assert plan.steps[0] == RestoreSets(
        create_text(WANTED.sets[1:]), tuple(s.name for s in WANTED.sets[1:])
    )
    kernel.execute(plan)
    assert plan_commit(WANTED, kernel.read(), "shared").steps == ()


def half_filled(kernel: MemoryKernel) -> None:
    kernel.sets[set_of()].members.clear()


def drifted(kernel: MemoryKernel) -> None:
    kernel.sets[set_of()].members = {"10.66.6.6": ""}


def test_a_half_filled_set_that_nothing_names_yet_is_filled() -> None:
    kernel = MemoryKernel()
    kernel.ipset(create_text(WANTED.sets))
    half_filled(kernel)
    plan = plan_commit(WANTED, kernel.read(), "shared")
    assert kinds(plan) == [RestoreSets, CountSets, RestoreTable, RestoreTable, ReadTables]
    kernel.execute(plan)
    assert kernel.read_members() == {entry.name: entry.members for entry in WANTED.sets}


def test_a_half_filled_set_in_use_is_repaired_by_a_swap_and_no_rule_moves() -> None:
    kernel = in_force()
    half_filled(kernel)
    plan = plan_commit(WANTED, kernel.read(), "shared")
    assert kinds(plan) == [RestoreSets, CountSets]
    restore = plan.steps[0]
    assert isinstance(restore, RestoreSets)
    assert restore.created == ()
    assert "swap" in restore.text
    assert not {"add", "flush"} & {
        line.split()[0] for line in restore.text.splitlines() if f" {set_of()} " in f"{line} "
    }
    kernel.execute(plan)
    assert kernel.read_members() == {entry.name: entry.members for entry in WANTED.sets}


def test_drift_of_the_right_size_is_repaired_once_it_is_seen() -> None:
    kernel = in_force()
    drifted(kernel)
    assert plan_commit(WANTED, kernel.read(), "shared").steps == ()
    plan = plan_commit(WANTED, kernel.read(), "shared", frozenset({set_of()}))
    assert kinds(plan) == [RestoreSets, CountSets]
    kernel.execute(plan)
    assert kernel.read_members() == {entry.name: entry.members for entry in WANTED.sets}


def test_drift_of_a_set_that_is_not_wanted_is_nobodys_business() -> None:
    kernel = in_force()
    other = frozenset({"r4:old:0123456789abcdefghij"})
    assert plan_commit(WANTED, kernel.read(), "shared", other).steps == ()


def test_a_repair_that_was_killed_half_way_does_not_stand_in_the_way_of_the_next() -> None:
    kernel = in_force()
    half_filled(kernel)
    (restore, _) = plan_commit(WANTED, kernel.read(), "shared").steps
    assert isinstance(restore, RestoreSets)
    kernel.ipset(restore.text.splitlines()[0])
    kernel.execute(plan_commit(WANTED, kernel.read(), "shared"))
    assert kernel.read_members() == {entry.name: entry.members for entry in WANTED.sets}


def test_the_generation_before_is_kept_and_the_one_before_that_destroyed() -> None:
    generations = [dataplane(*BOTH_RULES, members=f"10.2.0.{n}") for n in range(3)]
    own = [{entry.name for entry in one.sets} for one in generations]
    kernel = in_force(generations[0])
    kernel.execute(plan_commit(generations[1], kernel.read(), "shared"))
    assert set(kernel.sets) == own[0] | own[1]
    assert plan_commit(generations[1], kernel.read(), "shared").steps == ()
    plan = plan_commit(generations[2], kernel.read(), "shared")
    assert plan.steps[-1] == DestroySets(tuple(own[0] - own[1]))
    kernel.execute(plan)
    assert set(kernel.sets) == own[1] | own[2]


def test_a_family_that_the_kernel_has_not_needs_no_sets() -> None:
    kernel = MemoryKernel([V4])
    kernel.execute(plan_commit(WANTED, kernel.read(), "shared"))
    assert set(kernel.sets) == {entry.name for entry in WANTED.sets if entry.family is V4}
    assert plan_commit(WANTED, kernel.read(), "shared").steps == ()


def test_a_set_that_gets_its_members_back_is_counted() -> None:
    kernel = in_force()
    name = WANTED.sets[0].name
    kernel.sets[name].members.clear()
    _, count = plan_commit(WANTED, kernel.read(), "shared").steps
    assert count == CountSets(((name, len(WANTED.sets[0].members)),))


def test_members_that_come_and_go_change_only_their_set_and_its_rules() -> None:
    kernel = in_force(dataplane(*BOTH_RULES, members="10.2.0.10"))
    wanted = dataplane(*BOTH_RULES, members="10.2.0.10 10.2.0.11")
    sets, _, table, _ = plan_commit(wanted, kernel.read(), "shared").steps
    assert isinstance(sets, RestoreSets)
    assert len(sets.created) == 1
    assert isinstance(table, RestoreTable)
    assert table.family is V4


def compiled(situation: World) -> Dataplane:
    return compile_policy(resolve(verified(situation.content), situation.host))


def named_before_made(plan: CommitPlan, existing: set[str]) -> Iterator[str]:
    """Sets that a step names before any step made them."""
    made = set(existing)
    for step in plan.steps:
        if isinstance(step, RestoreSets):
            made.update(step.created)
        elif isinstance(step, RestoreTable):
            words = pairwise(step.text.split())
            yield from (name for at, name in words if at == "--match-set" and name not in made)


@settings(max_examples=40, deadline=None)
@given(WORLDS, WORLDS, st.sampled_from(MODES), st.booleans())
def test_any_plan_leads_there_once_and_back_again(
    first: World, second: World, mode: FilterTable, foreign: bool
) -> None:
    before, after = compiled(first), compiled(second)
    kernel = in_force(before, mode, FOREIGN if foreign else None)
    assert plan_commit(before, kernel.read(), mode).steps == ()
    old = state(kernel)
    plan = plan_commit(after, kernel.read(), mode)
    assert not list(named_before_made(plan, set(kernel.sets)))
    kernel.execute(plan)
    assert plan_commit(after, kernel.read(), mode).steps == ()
    members = kernel.read_members()
    assert {entry.name: members[entry.name] for entry in after.sets} == {
        entry.name: entry.members for entry in after.sets
    }
    undo(kernel, plan)
    assert state(kernel)[0] == old[0]
    kernel.execute(plan_removal(kernel.read()))
    assert not kernel.sets
    assert "reyes" not in kernel.save(V4) + kernel.save(V6)
