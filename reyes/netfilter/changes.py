"""The difference between a live kernel and a dataplane, in words for people.

Rules are compared by what their comments say, members by the set's label: neither changes when
only the other does, while names and ids would.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import filterfalse

from msgspec import Struct

from reyes.netfilter import names
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.entries import EVERY_CODE, in_words
from reyes.netfilter.iptables import Table, way_comment
from reyes.netfilter.live import LiveKernel, LiveTable, comment_of
from reyes.netfilter.plan import FilterTable, paired

_TREE = re.compile(rf"\b{names.CHAIN_PREFIX}\d+-")
"""What the names of all chains of a tree begin with."""

_NUMBER = re.compile(r" rule \d+")


class _Place(Struct, frozen=True):
    """What the rules of a chain are for, and those of the tree below it; how many ways lead on."""

    rules: list[str]
    ways: Counter[str]


def describe_changes(
    dataplane: Dataplane,
    live: LiveKernel,
    members: Mapping[str, tuple[str, ...]],
    filter_table: FilterTable,
) -> tuple[str, ...]:
    """List what a commit adds (`+`) and removes (`-`); `members` are those of the live sets."""
    lines: list[str] = []
    for table, now in paired(dataplane.tables, live):
        lines += _table_changes(table, now, filter_table)
    return (*lines, *_member_changes(dataplane, live, members))


def _table_changes(table: Table, live: LiveTable, filter_table: FilterTable) -> Iterator[str]:
    family = f"IPv{table.family.value}"
    if not live.jump_in_place:
        yield f"+ {family} INPUT: jump to {names.INPUT} as the first rule"
    if filter_table == "exclusive":
        yield from (f"- {family} not of Reyes, discarded: {line}" for line in live.foreign)
    old = _by_place(live.own_chains)
    new = _by_place({c: [line for _, line in rules] for c, rules in table.rendered.items()})
    for place in dict.fromkeys((*new, *old)):
        prefix = f"{family} {place}: "
        before, after = (each.get(place, _Place([], Counter())) for each in (old, new))
        yield from _rule_changes(before.rules, after.rules, prefix)
        for sign, ways in (("-", before.ways - after.ways), ("+", after.ways - before.ways)):
            if ways:
                yield f"{sign} {prefix}ways to its rules: {ways.total()}"
        if before.rules != after.rules and sorted(before.rules) == sorted(after.rules):
            yield f"+ {prefix}the rules in their right order"


def _rule_changes(before: Sequence[str], after: Sequence[str], prefix: str) -> Iterator[str]:
    """Tell which rules come and go: behind one that goes, others of its group move up a number."""
    gone, come = Counter(before) - Counter(after), Counter(after) - Counter(before)
    renumbered = Counter(map(_unnumbered, gone.elements())) & Counter(
        map(_unnumbered, come.elements())
    )
    for sign, texts in (("-", gone), ("+", come)):
        left = Counter(renumbered)
        for text in texts.elements():
            if left[_unnumbered(text)]:
                left[_unnumbered(text)] -= 1
            else:
                yield f"{sign} {prefix}{text}"
    if renumbered:
        yield f"+ {prefix}rules with another number in their group: {renumbered.total()}"


def _unnumbered(comment: str) -> str:
    return _NUMBER.sub(" rule", comment)


def _by_place(chains: Mapping[str, Sequence[str]]) -> dict[str, _Place]:
    """Put the chains of a tree with that from which it is entered: rules move about in it."""
    entered = {
        tree[0]: name
        for name, lines in chains.items()
        if not _TREE.match(name)
        for line in lines
        if (tree := _TREE.search(line))
    }
    found: dict[str, _Place] = {}
    for name in (*filterfalse(_TREE.match, chains), *sorted(filter(_TREE.match, chains))):
        tree = _TREE.match(name)
        place = found.setdefault(
            entered.get(tree[0], name) if tree else name, _Place([], Counter())
        )
        for line in chains[name]:
            comment = comment_of(line)
            if comment.startswith(way_comment("")):
                place.ways[comment] += 1
            else:
                place.rules.append(comment)
    return found


def _member_changes(
    dataplane: Dataplane, live: LiveKernel, members: Mapping[str, tuple[str, ...]]
) -> list[str]:
    in_force = sorted(live.referenced_sets & members.keys())
    before = {name: list(_shown(members[name])) for name in in_force}
    after = {entry.name: list(_shown(entry.members)) for entry in dataplane.sets}
    replaced = _replaced(before, after)
    lines: list[tuple[str, str]] = []
    for name, shown in after.items():
        lines += _labelled(name, before.get(replaced.get(name, name), ()), shown)
    for name in sorted(before.keys() - after.keys() - set(replaced.values())):
        lines += _labelled(name, before[name], ())
    # Of each label what goes is told first.
    return [line for _, line in sorted(lines, key=lambda each: (each[0], each[1][0] == "+"))]


def _labelled(name: str, before: Iterable[str], after: Iterable[str]) -> list[tuple[str, str]]:
    label = names.set_label(name)
    return [(label, line) for line in _signed(before, after, f"{label}: ")]


def _replaced(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> dict[str, str]:
    """Return which set each new one takes the place of: of its label, with the most in common.

    Labels are the first letters of groups' names, and several may have the same.
    """
    holding: dict[tuple[str, str], list[str]] = {}
    for name in sorted(before.keys() - after.keys()):
        for member in before[name]:
            holding.setdefault((names.set_label(name), member), []).append(name)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(after.keys() - before.keys()):
        label = names.set_label(name)
        common = Counter(old for each in after[name] for old in holding.get((label, each), ()))
        old = next((old for old, _ in common.most_common() if old not in taken), None)
        if old is not None:
            taken.add(old)
            found[name] = old
    return found


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
