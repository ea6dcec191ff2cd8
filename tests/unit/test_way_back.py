"""When a commit fails, when it is taken back, and when all of Reyes is taken out."""

import sys

import pytest

from reyes.errors import KernelError
from reyes.netfilter.ipset import create_text
from reyes.netfilter.live import Generation, LiveKernel
from reyes.netfilter.names import set_family
from reyes.netfilter.plan import (
    DestroySets,
    FilterTable,
    RestoreTable,
    Step,
    carry_out,
    plan_commit,
    plan_removal,
    plan_return,
    shows,
)
from reyes.netfilter.restore import revert_text
from tests.commits import (
    BOTH_RULES,
    FOREIGN,
    MODES,
    V4,
    V6,
    WANTED,
    WEB,
    dataplane,
    foreign_part,
    in_force,
    kinds,
    spoil,
    state,
    undo,
)
from tests.fakes.memory_kernel import MemoryKernel
from tests.worlds import (
    allow,
    tcp,
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("failing", range(6))
def test_whichever_step_is_refused_all_is_as_before(mode: FilterTable, failing: int) -> None:
    kernel = in_force(dataplane(*BOTH_RULES, members="10.2.0.7", second=True), mode=mode)
    kernel.execute(plan_commit(WANTED, kernel.read(), mode))
    wanted = dataplane(allow(tcp(8443), WEB), members="10.2.0.99 fd00:2::99")
    before = state(kernel)
    plan = plan_commit(wanted, kernel.read(), mode)
    assert len(plan.steps) == 6
    kernel.refuses = lambda step: step is plan.steps[failing]
    with pytest.raises(KernelError):
        kernel.execute(plan)
    assert state(kernel) == before


@pytest.mark.parametrize("mode", MODES)
def test_removal_leaves_only_what_is_foreign(mode: FilterTable) -> None:
    kernel = MemoryKernel()
    spoil(kernel, FOREIGN.removeprefix("*filter\n").removesuffix("COMMIT\n").strip())
    kernel.execute(plan_commit(WANTED, kernel.read(), mode))
    spoil(kernel, "-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n-A INPUT -g reyes-input")
    kernel.ipset("create f2b hash:net family inet hashsize 64 maxelem 1\nadd f2b 192.0.2.1")
    foreign, before = foreign_part(kernel), state(kernel)
    plan = plan_removal(kernel.read())
    assert kinds(plan) == [RestoreTable, RestoreTable, DestroySets]
    kernel.execute(plan)
    assert foreign_part(kernel) == foreign
    assert "reyes" not in kernel.save(V4) + kernel.save(V6)
    assert list(kernel.sets) == ["f2b"]
    assert plan_removal(kernel.read()).steps == ()
    kernel.ipset(create_text(WANTED.sets))
    undo(kernel, plan)
    assert state(kernel) == before


@pytest.mark.parametrize("way", ["-A INPUT -i wg0", "-A FORWARD"])
@pytest.mark.parametrize("flag", ["-j", "-g"])
def test_a_chain_that_others_lead_into_stays_empty(way: str, flag: str) -> None:
    kernel = in_force()
    spoil(kernel, f"{way} {flag} reyes-drop")
    kernel.execute(plan_removal(kernel.read()))
    (four, six) = kernel.read().tables
    assert (four.own_chains, six.own_chains) == ({"reyes-drop": ()}, {})
    assert "reyes-drop" not in four.rules
    assert four.foreign == (f"{way} {flag} reyes-drop",)


def test_what_is_cut_off_is_undone_with_all_that_came_before_it() -> None:
    done: list[Step] = []
    undone: list[Step] = []

    def do(step: Step) -> None:
        done.append(step)
        if isinstance(step, RestoreTable):
            sys.exit(1)

    with pytest.raises(SystemExit):
        carry_out(plan_commit(WANTED, MemoryKernel().read(), "shared"), do, undone.append)
    assert len(done) == 3
    assert undone == done[::-1]


def test_there_is_nothing_to_remove_from_an_empty_kernel() -> None:
    assert plan_removal(MemoryKernel().read()).steps == ()
    assert plan_removal(LiveKernel()).steps == ()


def test_a_removal_that_fails_for_one_family_is_undone_for_the_other() -> None:
    kernel = in_force(foreign=FOREIGN)
    before = state(kernel)
    kernel.refuses = lambda step: isinstance(step, RestoreTable) and step.family is V6
    with pytest.raises(KernelError):
        kernel.execute(plan_removal(kernel.read()))
    assert state(kernel) == before


def test_there_is_no_way_back_to_where_we_are() -> None:
    (table, _) = in_force(foreign=FOREIGN).read().tables
    for flush in (False, True):
        assert revert_text(table, table, flush=flush) is None


def test_there_is_no_way_back_in_a_family_that_was_switched_off() -> None:
    before = in_force()
    generation = Generation(before.read(), before.read_members())
    kernel = MemoryKernel([V4])
    assert not shows(kernel.read(), generation)
    kernel.execute(plan_return(generation, kernel.read(), "shared"))
    assert shows(kernel.read(), generation)
    assert {set_family(name) for name in kernel.sets} == {V4}


def test_the_way_back_leaves_what_others_did_in_the_meantime() -> None:
    kernel = in_force(foreign=FOREIGN)
    before = kernel.read()
    kernel.execute(plan_commit(dataplane(), before, "shared"))
    spoil(kernel, "-D INPUT -i docker0 -j ACCEPT\n-A INPUT -s 10.9.0.9 -j ACCEPT")
    foreign = foreign_part(kernel)
    kernel.revert(before, "shared")
    assert foreign_part(kernel) == foreign
    assert plan_commit(WANTED, kernel.read(), "shared").steps == ()


def test_the_way_back_is_found_although_the_rules_before_our_jump_are_gone() -> None:
    kernel = in_force(foreign=FOREIGN)
    spoil(kernel, "-D INPUT -j reyes-input\n-A INPUT -j reyes-input\n-A INPUT -g reyes-input")
    before = kernel.read()
    kernel.execute(plan_commit(dataplane(), before, "shared"))
    spoil(kernel, "\n".join(rule.replace("-A", "-D", 1) for rule in foreign_inputs(kernel)))
    kernel.revert(before, "shared")
    assert kernel.read().tables[0].rules["INPUT"] == (
        "-A INPUT -j reyes-input",
        "-A INPUT -g reyes-input",
    )


def foreign_inputs(kernel: MemoryKernel) -> list[str]:
    return [line for line in foreign_part(kernel)[0] if line.startswith("-A INPUT")]
