"""The difference between a live kernel and a dataplane, in words for people.

Rules are compared by what their comments say, members by the set's label: neither changes when
only the other does, while names and ids would.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from reyes.netfilter import names
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.entries import EVERY_CODE, in_words
from reyes.netfilter.iptables import Table
from reyes.netfilter.live import LiveKernel, LiveTable, comment_of
from reyes.netfilter.plan import FilterTable, paired


def describe_changes(
    dataplane: Dataplane,
    live: LiveKernel,
    members: Mapping[str, tuple[str, ...]],
    filter_table: FilterTable,
) -> tuple[str, ...]:
    """List what a commit adds (`+`) and removes (`-`); `members` are those of the live sets."""
    lines: list[str] = []
    for table, now in paired(dataplane, live):
        lines += _table_changes(table, now, filter_table)
    return (*lines, *_member_changes(dataplane, live, members))


def _table_changes(table: Table, live: LiveTable, filter_table: FilterTable) -> Iterator[str]:
    family = f"IPv{table.family.value}"
    if not live.jumps_right:
        yield f"+ {family} INPUT: jump to {names.INPUT} as the first rule"
    if filter_table == "exclusive":
        yield from (f"- {family} not of Reyes, discarded: {line}" for line in live.foreign)
    for chain in table.chains:
        before = [comment_of(line) for line in live.rules.get(chain.name, ())]
        after = [comment_of(line) for _, line in table.rendered[chain.name]]
        yield from _signed(before, after, f"{family} {chain.name}: ")
        if before != after and sorted(before) == sorted(after):
            yield f"+ {family} {chain.name}: the rules in their right order"
    kept = {chain.name for chain in table.chains}
    for name in live.own_chains:
        if name not in kept:
            yield from _signed(map(comment_of, live.rules.get(name, ())), (), f"{family} {name}: ")


def _member_changes(
    dataplane: Dataplane, live: LiveKernel, members: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    in_force = {name for table in live.tables for name in table.referenced_sets}
    before: dict[str, list[str]] = {}
    for name in in_force & members.keys():
        before.setdefault(names.set_label(name), []).extend(_shown(members[name]))
    after: dict[str, list[str]] = {}
    for entry in dataplane.sets:
        after.setdefault(names.set_label(entry.name), []).extend(_shown(entry.members))
    for label in sorted(before.keys() | after.keys()):
        yield from _signed(before.get(label, ()), after.get(label, ()), f"{label}: ")


def _shown(members: Iterable[str]) -> Iterator[str]:
    """Write a set's members for people: a type of ICMP with all its codes is one line."""
    by_type: dict[str, list[str]] = {}
    for member in map(in_words, members):
        network, comma, service = member.partition(",")
        start = service.partition("/")[0]
        by_type.setdefault(f"{network}{comma}{start}", []).append(member)
    for start, same in by_type.items():
        yield from [start] if len(same) == EVERY_CODE else same


def _signed(before: Iterable[str], after: Iterable[str], prefix: str) -> Iterator[str]:
    gone, come = Counter(before), Counter(after)
    yield from (f"- {prefix}{text}" for text in (gone - come).elements())
    yield from (f"+ {prefix}{text}" for text in (come - gone).elements())
