"""Dataplane x LiveKernel -> CommitPlan: the steps that make the kernel what it should be.

Order, with reasons (docs/design.md):

1. Missing sets are created, because a restore that names a missing set changes nothing at all.
2. They are counted in the kernel, because a failed `ipset restore` leaves sets partly filled.
3. One restore a family puts all rules in force in one instant.
4. The rules are read back, because an exit code is only a word.
5. Sets that nothing needs are destroyed, except those that the rules before the commit named:
   they are the way back.

A plan is data: `reyes.adapters.kernel` executes it and, if a step fails, undoes the steps before
it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

from msgspec import Struct

from reyes.errors import KernelError
from reyes.net import Family
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.ipset import IPSet, create_text, repair_text
from reyes.netfilter.iptables import Table
from reyes.netfilter.live import Generation, LiveKernel, LiveTable
from reyes.netfilter.names import set_family, vouches_for
from reyes.netfilter.restore import exclusive_text, removal_text, revert_text, shared_text

FilterTable = Literal["shared", "exclusive"]
AnyTable = TypeVar("AnyTable", Table, LiveTable)


class RestoreSets(Struct, frozen=True):
    """Feed `ipset restore`; `created` are destroyed again if this or a later step fails."""

    text: str
    created: tuple[str, ...]


class CountSets(Struct, frozen=True):
    """Read the sets back: each must hold so many entries."""

    entries: tuple[tuple[str, int], ...]


class RestoreTable(Struct, frozen=True):
    """Feed a family's restore command; with `flush` it discards everybody's rules.

    `before` is the table as it was, for the way back (`restore.revert_text`).
    """

    family: Family
    text: str
    before: LiveTable
    flush: bool


class ReadTables(Struct, frozen=True):
    """Read the tables back: each must hold our chains in full, and the jump first."""

    tables: tuple[Table, ...]


class DestroySets(Struct, frozen=True):
    """Destroy sets that nothing refers to; one that is still in use is left for the next run."""

    names: tuple[str, ...]


Step = RestoreSets | CountSets | RestoreTable | ReadTables | DestroySets


class CommitPlan(Struct, frozen=True):
    """What to do, in this order; no steps means that the kernel is as it should be."""

    steps: tuple[Step, ...]

    @property
    def changes_rules(self) -> bool:
        """Whether it touches what packets see."""
        return any(isinstance(step, RestoreTable) for step in self.steps)


def plan_commit(
    dataplane: Dataplane,
    live: LiveKernel,
    filter_table: FilterTable,
    drifted: frozenset[str] = frozenset(),
    spared: frozenset[str] = frozenset(),
) -> CommitPlan:
    """Plan the way from the live kernel to a dataplane.

    `drifted` names sets whose members were found to differ from what their names say; a wrong
    number of entries is seen here. `spared` names sets that stay though nothing refers to them.
    """
    steps = _fill([e for e in dataplane.sets if e.family in live.families], live, drifted)
    changed = [
        (table, now)
        for table, now in paired(dataplane.tables, live)
        if not is_right(table.identities, now, filter_table)
    ]
    if changed:
        steps += [_restore(table, now, filter_table) for table, now in changed]
        steps.append(ReadTables(tuple(table for table, _ in changed)))
    if steps:
        needed = spared.union((entry.name for entry in dataplane.sets), live.referenced_sets)
        unneeded = sorted(live.sets.keys() - needed)
        if unneeded:
            steps.append(DestroySets(tuple(unneeded)))
    return CommitPlan(tuple(steps))


def plan_removal(live: LiveKernel) -> CommitPlan:
    """Plan to take all that is ours out of the kernel and to leave all else as it is."""
    texts = ((table, removal_text(table)) for table in live.tables)
    steps: list[Step] = [
        RestoreTable(table.family, text, table, flush=False) for table, text in texts if text
    ]
    if live.sets:
        steps.append(DestroySets(tuple(sorted(live.sets))))
    return CommitPlan(tuple(steps))


def plan_return(
    generation: Generation,
    live: LiveKernel,
    filter_table: FilterTable,
    drifted: frozenset[str] = frozenset(),
) -> CommitPlan:
    """Plan the way back to a generation; `drifted` is as for `plan_commit`.

    Raises:
        KernelError: one of its sets is gone, and nobody remembers its members.
    """
    named = sorted(n for n in generation.referenced_sets if set_family(n) in live.families)
    remembered = [
        _remembered(generation, name)
        for name in named
        if name in generation.members or name not in live.sets
    ]
    steps = _fill(remembered, live, drifted)
    flush = filter_table == "exclusive"
    for before, now in paired(generation.kernel.tables, live):
        text = revert_text(before, now, flush=flush)
        if text:
            steps.append(RestoreTable(before.family, text, now, flush))
    return CommitPlan(tuple(steps))


def shows(live: LiveKernel, generation: Generation) -> bool:
    """Tell whether a kernel shows our rules of a generation, whatever its sets hold."""
    pairs = paired(generation.kernel.tables, live)
    return all(revert_text(before, now, flush=False) is None for before, now in pairs)


def carry_out(plan: CommitPlan, do: Callable[[Step], None], undo: Callable[[Step], None]) -> None:
    """Do a plan's steps in order; if one fails, undo it and those before it, the last first."""
    for position, step in enumerate(plan.steps):
        try:
            do(step)
        except BaseException:
            for done in reversed(plan.steps[: position + 1]):
                undo(done)
            raise


def drifted_sets(members: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """Return the names of our sets that do not vouch for the members that were read."""
    return frozenset(name for name, own in members.items() if not vouches_for(name, own))


def _fill(sets: Sequence[IPSet], live: LiveKernel, drifted: frozenset[str]) -> list[Step]:
    """Create the sets that are missing, and give others their members back."""
    missing = [entry for entry in sets if entry.name not in live.sets]
    wrong = [
        entry
        for entry in sets
        if entry.name in live.sets
        and (entry.name in drifted or live.sets[entry.name].entries != len(entry.members))
    ]
    if not (missing or wrong):
        return []
    text = create_text(missing) + repair_text(wrong, live.sets)
    return [
        RestoreSets(text, tuple(entry.name for entry in missing)),
        CountSets(tuple((entry.name, len(entry.members)) for entry in (*missing, *wrong))),
    ]


def _remembered(generation: Generation, name: str) -> IPSet:
    if name not in generation.members:
        raise KernelError(
            f"the set {name} of that generation is gone",
            "`reyes follower --force` puts the newest ruleset in force",
        )
    return IPSet(name, set_family(name), generation.members[name])


def paired(tables: Iterable[AnyTable], live: LiveKernel) -> list[tuple[AnyTable, LiveTable]]:
    """Return the tables of the families that a host has, each with the live one."""
    by_family = {table.family: table for table in live.tables}
    return [(table, by_family[table.family]) for table in tables if table.family in by_family]


def payload_text(dataplane: Dataplane, live: LiveKernel, filter_table: FilterTable) -> str:
    """Write all that belongs into a host's kernel: sets, and the rules of the families it has."""
    parts = ["# ipset restore\n" + create_text(dataplane.sets)]
    parts += [
        f"# {'iptables' if table.family is Family.V4 else 'ip6tables'}-restore\n"
        + table_text(table, now, filter_table)
        for table, now in paired(dataplane.tables, live)
    ]
    return "\n".join(parts)


def table_text(table: Table, live: LiveTable, filter_table: FilterTable) -> str:
    """Write the text that puts all of a table in force over a live one."""
    if filter_table == "exclusive":
        return exclusive_text(table)
    return shared_text(table, live, table.rendered)


def is_right(
    chains: Mapping[str, tuple[str, ...]], live: LiveTable, filter_table: FilterTable
) -> bool:
    """Tell whether a live table shows these chains, and nothing else where all of it is ours."""
    return live.shows(chains) and not (filter_table == "exclusive" and live.foreign)


def differing(table: Table, live: LiveTable) -> tuple[str, ...]:
    """Return the names of a table's chains that a live table does not show as they should be."""
    return tuple(
        chain for chain in table.rendered if live.identities(chain) != table.identities[chain]
    )


def _restore(table: Table, live: LiveTable, filter_table: FilterTable) -> RestoreTable:
    exclusive = filter_table == "exclusive"
    text = exclusive_text(table) if exclusive else shared_text(table, live, differing(table, live))
    return RestoreTable(table.family, text, live, flush=exclusive)
