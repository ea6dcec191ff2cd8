"""Comments of others that take several lines in what iptables-save prints."""

import pytest

from reyes.adapters.kernel import Kernel
from reyes.errors import KernelError
from reyes.net import Family
from reyes.netfilter.live import LiveTable, in_one_line_each
from reyes.netfilter.plan import CommitPlan, FilterTable, RestoreTable, plan_commit, plan_removal
from tests.commits import WANTED
from tests.kernel.judge import BACKENDS, Backend, backend, commit
from tests.kernel.packets import Wire

pytestmark = pytest.mark.kernel

COMMENTS = (
    "ticket 12\nallow ssh",
    "allowed:\n* ssh\n* more",
    "x\n:\n-A",
    "a\n-A INPUT -j reyes-input\nb",
    "\n# Table filter is incompatible, use nft",
    'say "yes"\nor \\ no\\',
    "it's\nCOMMIT\n",
    "a" * 120 + "\n" + "b" * 134,
)


def add(wire: Wire, name: Backend, *rule: str) -> None:
    wire.run([f"iptables-{name}", *rule])


def allow_ssh(wire: Wire, name: Backend) -> None:
    for comment in COMMENTS:
        match = ("-p", "tcp", "--dport", "22", "-m", "comment", "--comment", comment)
        add(wire, name, "-A", "INPUT", *match, "-j", "ACCEPT")


def saved(wire: Wire, name: Backend) -> str:
    """What iptables-save prints, without the date."""
    text = wire.run([f"iptables-{name}-save", "-t", "filter"]).stdout
    return text.partition("*filter\n")[2].rpartition("#")[0]


def table(wire: Wire) -> LiveTable:
    found: LiveTable = wire.host.call(Kernel().read).tables[0]
    return found


@pytest.mark.parametrize("name", BACKENDS)
def test_rules_with_long_comments_of_others_stay_as_they_are(name: Backend) -> None:
    with backend(name), Wire([]) as wire:
        allow_ssh(wire, name)
        before = saved(wire, name)
        wire.host.call(commit, WANTED, "shared")
        assert table(wire).jump_in_place
        assert not plan_commit(WANTED, wire.host.call(Kernel().read), "shared").steps
        wire.host.call(lambda: Kernel().execute(plan_removal(Kernel().read())))
        assert saved(wire, name) == before


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("mode", ["shared", "exclusive"])
def test_the_way_back_brings_rules_with_long_comments_back(
    name: Backend, mode: FilterTable
) -> None:
    """Nothing but the comments' newlines is lost."""
    with backend(name), Wire([]) as wire:
        allow_ssh(wire, name)
        before, text = wire.host.call(Kernel().read), saved(wire, name)
        wire.host.call(commit, WANTED, mode)
        wire.host.call(Kernel().revert, before, mode)
        assert wire.host.call(Kernel().read).tables == before.tables
        assert saved(wire, name) == (text if mode == "shared" else in_one_line_each(text))


@pytest.mark.parametrize("name", BACKENDS)
def test_a_step_that_fails_is_undone_beside_long_comments(name: Backend) -> None:
    with backend(name), Wire([]) as wire:
        allow_ssh(wire, name)
        before = table(wire)
        good, *_ = (
            step
            for step in plan_commit(WANTED, wire.host.call(Kernel().read), "exclusive").steps
            if isinstance(step, RestoreTable)
        )
        bad = RestoreTable(
            Family.V4, "*filter\n-A nowhere -j ACCEPT\nCOMMIT\n", before, flush=True
        )
        with pytest.raises(KernelError):
            wire.host.call(Kernel().execute, CommitPlan((good, bad)))
        assert table(wire) == before


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("mode", ["shared", "exclusive"])
def test_a_jump_of_others_with_a_long_comment_is_no_obstacle(
    name: Backend, mode: FilterTable
) -> None:
    """No `iptables-restore` could name it to delete it."""
    with backend(name), Wire([]) as wire:
        wire.host.call(commit, WANTED, mode)
        jump = ("-m", "comment", "--comment", "two\nlines", "-j", "reyes-input")
        add(wire, name, "-I", "INPUT", "1", *jump)
        wire.host.call(commit, WANTED, mode)
        assert table(wire).jump_in_place
        wire.host.call(lambda: Kernel().execute(plan_removal(Kernel().read())))
        assert list(table(wire).own_chains) == (["reyes-input"] if mode == "shared" else [])
