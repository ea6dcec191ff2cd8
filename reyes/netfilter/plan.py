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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from msgspec import Struct

from reyes.errors import KernelError
from reyes.net import Family
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.ipset import IPSet, create_text, repair_text
from reyes.netfilter.iptables import Table
from reyes.netfilter.live import BUILTIN_CHAINS, JUMP, Generation, LiveKernel, LiveTable
from reyes.netfilter.names import set_family, vouches_for

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

    `before` is the table as it was, for the way back (`revert`).
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
    needed = spared.union(entry.name for entry in dataplane.sets)
    unneeded = _unneeded(live, needed) if steps else ()
    if unneeded:
        steps.append(DestroySets(unneeded))
    return CommitPlan(tuple(steps))


def plan_removal(live: LiveKernel) -> CommitPlan:
    """Plan to take all that is ours out of the kernel and to leave all else as it is.

    A chain that somebody else's rule leads into cannot go: it stays, empty.
    """
    steps: list[Step] = []
    for table in live.tables:
        lines = [f":{chain} - [0:0]" for chain in table.own_chains]
        lines += map(_deletion, table.jumps.values())
        lines += [f"-X {c}" for c in table.own_chains if c not in table.entered_by_others]
        if lines:
            steps.append(RestoreTable(table.family, _transaction(lines), table, flush=False))
    if live.sets:
        steps.append(DestroySets(tuple(sorted(live.sets))))
    return CommitPlan(tuple(steps))


def plan_return(
    generation: Generation,
    live: LiveKernel,
    filter_table: FilterTable,
    drifted: frozenset[str] = frozenset(),
) -> CommitPlan:
    """Plan the way back to rules of another time; `drifted` is as for `plan_commit`.

    Raises:
        KernelError: one of their sets is gone, and nobody remembers its members.
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
        text = revert(before, now, flush=flush)
        if text:
            steps.append(RestoreTable(before.family, text, now, flush))
    return CommitPlan(tuple(steps))


def shows(live: LiveKernel, generation: Generation) -> bool:
    """Tell whether a kernel shows our rules of another time, whatever its sets hold."""
    pairs = paired(generation.kernel.tables, live)
    return all(revert(before, now, flush=False) is None for before, now in pairs)


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


def revert(before: LiveTable, now: LiveTable, *, flush: bool) -> str | None:
    """Write the restore text that brings back what was, None if it is there.

    With `flush` it is the whole table, else our chains and jumps in it.
    """
    if flush:
        return None if now == before else _full_text(before)
    if _own_part(before) == _own_part(now):
        return None
    lines = [f":{chain} - [0:0]" for chain in sorted({*before.own_chains, *now.own_chains})]
    lines += map(_deletion, now.jumps.values())
    # iptables refuses a position behind the end, and others may have removed rules since.
    others = len(now.rules.get("INPUT", ())) - len(now.jumps)
    for number, (position, line) in enumerate(before.jumps.items()):
        place = min(position, others + number) + 1
        lines.append(line.replace("-A INPUT", f"-I INPUT {place}", 1))
    lines += [line for chain in before.own_chains for line in before.rules.get(chain, ())]
    lines += [f"-X {chain}" for chain in now.own_chains if chain not in before.policies]
    return _transaction(lines)


def paired(tables: Iterable[AnyTable], live: LiveKernel) -> list[tuple[AnyTable, LiveTable]]:
    """Return the tables of the families that a host has, each with the live one."""
    by_family = {table.family: table for table in live.tables}
    return [(table, by_family[table.family]) for table in tables if table.family in by_family]


def payload_text(dataplane: Dataplane, live: LiveKernel, filter_table: FilterTable) -> str:
    """Write all that belongs into a host's kernel: sets, and the rules of the families it has."""
    parts = ["# ipset restore\n" + create_text(dataplane.sets)]
    parts += [
        f"# {'iptables' if table.family is Family.V4 else 'ip6tables'}-restore\n"
        + payload(table, now, filter_table)
        for table, now in paired(dataplane.tables, live)
    ]
    return "\n".join(parts)


def payload(table: Table, live: LiveTable, filter_table: FilterTable) -> str:
    """Write the restore text that puts all of a table in force over a live one."""
    if filter_table == "exclusive":
        return _whole_text(table)
    return _own_text(table, live, table.rendered)


def rehearsal(table: Table, chains: Iterable[str]) -> str:
    """Write the restore text that tries these chains of a table, the others being empty."""
    declared = (f":{chain} - [0:0]" for chain in table.rendered)
    return _transaction((*declared, JUMP, *_lines(table, chains)))


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
    text = _whole_text(table) if exclusive else _own_text(table, live, differing(table, live))
    return RestoreTable(table.family, text, live, flush=exclusive)


def _whole_text(table: Table) -> str:
    """Write everybody's table anew: ours is all that there is."""
    builtin = (f":{chain} ACCEPT [0:0]" for chain in BUILTIN_CHAINS)
    declared = (f":{chain} - [0:0]" for chain in table.rendered)
    return _transaction((*builtin, *declared, JUMP, *_lines(table, table.rendered)))


def _own_text(table: Table, live: LiveTable, written: Iterable[str]) -> str:
    """Write these chains anew, remove those of ours that are not wanted, and leave all others."""
    stale = [chain for chain in live.own_chains if chain not in table.rendered]
    declared = (f":{chain} - [0:0]" for chain in (*written, *stale))
    removed = (f"-X {chain}" for chain in stale)
    return _transaction((*declared, *_jump_lines(live), *_lines(table, written), *removed))


def _lines(table: Table, chains: Iterable[str]) -> Iterator[str]:
    return (line for chain in chains for _, line in table.rendered[chain])


def _jump_lines(live: LiveTable) -> list[str]:
    """Put the one jump first, by value: positions may shift while we look."""
    if live.jump_in_place:
        return []
    return [*map(_deletion, live.jumps.values()), JUMP.replace("-A INPUT", "-I INPUT 1")]


def _full_text(live: LiveTable) -> str:
    """Write a whole live table; counters start anew."""
    chains = [f":{chain} {policy} [0:0]" for chain, policy in live.policies.items()]
    return _transaction([*chains, *(line for rules in live.rules.values() for line in rules)])


def _own_part(table: LiveTable) -> object:
    chains = {chain: table.rules.get(chain, ()) for chain in table.own_chains}
    return chains, table.jumps


def _deletion(line: str) -> str:
    return line.replace("-A ", "-D ", 1)


def _transaction(lines: Iterable[str]) -> str:
    return "\n".join(("*filter", *lines, "COMMIT", ""))


def _unneeded(live: LiveKernel, wanted: Iterable[str]) -> tuple[str, ...]:
    before = (table.referenced_sets for table in live.tables)
    return tuple(sorted(set(live.sets).difference(wanted, *before)))
