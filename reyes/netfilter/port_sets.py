"""Which sets tell who may use which ports, where the ranges of several sources overlap.

A set of networks with their reaches tells by one look-up who may use a stretch of ports: whose
reach holds it (`reaches` finds them, `entries` has how one is written). A network is in a set
once, so a set is for a section of neighbouring stretches in which no network has a second reach.
If packets are looked up twice a section has two such sets, and goes on until a network has a third
reach.

Other plans are tried besides, which take fewer members here and there: networks of one reach apart
from the others, who would have them in the sets of all their sections; a union for each stretch,
of which many may be the same; a look-up for each source. Fewer look-ups come first.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from math import inf
from operator import itemgetter

from msgspec import Struct

from reyes.net import Ports
from reyes.netfilter.entries import with_reach
from reyes.netfilter.iptables import Match, SourcePortsSet
from reyes.netfilter.reaches import Opened, Reach, find_opened, find_reaches
from reyes.netfilter.rules import MakeSet, union

PORT_LOOKUPS = range(1, 7)
"""How often the source of a packet may be looked up for its port."""

OWN_LOOKUPS = range(PORT_LOOKUPS.stop, 17)
"""How often, where each look-up is of a source's own set: it has its members once, however many
ranges it is for."""

PORT_MEMBERS = 200_000
"""So many members the sets for the ports of a protocol should have at most: they take about 10 MB
of the kernel's memory, and half a second to make."""

HARDLY_MORE = 1.2
"""Where no number of look-ups keeps to that, one does with so many times the fewest members."""


class _PortSet(Struct, frozen=True):
    """A set for a section of stretches: the reaches in it, in the order of their firsts."""

    section: range
    reaches: Sequence[Reach]

    @property
    def is_plain(self) -> bool:
        """Whether all in it may use all of the section: then it holds no ports."""
        first, last = self.section[0], self.section[-1]
        return all(first in each.stretches and last in each.stretches for each in self.reaches)

    @property
    def content(self) -> frozenset[object]:
        """What sets of the same members have in common."""
        if self.is_plain:
            return frozenset(each.named for each in self.reaches)
        return frozenset((each.named, each.ports) for each in self.reaches)

    @property
    def size(self) -> int:
        """The number of its members."""
        return sum(len(each.networks) for each in self.reaches)

    @property
    def stretches(self) -> Iterator[int]:
        """The stretches that somebody in it may use."""
        first, after = self.section.start, self.section.stop
        for reach in self.reaches:
            yield from range(max(first, reach.stretches.start), min(after, reach.stretches.stop))
            first = max(first, reach.stretches.stop)


class _Union(Struct, frozen=True):
    """A set for one stretch, without ports: all networks that entries of `opened` name.

    `content` are the indexes of these entries.
    """

    stretches: tuple[int]
    content: frozenset[int]
    size: int


_Plan = Callable[[], Iterator[_PortSet | _Union]]
"""Yields sets that tell together who may use all stretches."""


def port_matches(
    stretches: Sequence[Ports], opened: Sequence[Opened], make_set: MakeSet
) -> dict[Ports, list[Match]]:
    """Make the sets for stretches of ports, and return the look-ups of each.

    The stretches come in their order, and no service begins or ends inside of one.
    """
    found: dict[Ports, list[Match]] = {ports: [] for ports in stretches}
    made: dict[frozenset[object], Callable[[Ports], Match]] = {}
    for one in _choose(stretches, opened)():
        content = one.content
        if content not in made:
            made[content] = _look_up(one, opened, make_set)
        for number in one.stretches:
            found[stretches[number]].append(made[content](stretches[number]))
    return found


def _choose(stretches: Sequence[Ports], opened: Sequence[Opened]) -> _Plan:
    """Choose a plan of as few look-ups as the members allow, and of those that of the fewest.

    Where none keeps to them, it is one that takes hardly more than the fewest.
    """
    opened_in = find_opened(stretches, opened)
    unions = partial(_unions, opened_in, opened)
    fewest = len(_networks(range(len(opened)), opened))  # each is in a set at least once
    if 1 in PORT_LOOKUPS and _members(unions, fewest) <= fewest:
        return unions
    plans = _plans(stretches, opened, opened_in)
    for of_same in plans.values():
        members = [_members(plan, PORT_MEMBERS) for plan in of_same]
        if min(members) <= PORT_MEMBERS:
            return of_same[members.index(min(members))]
    found: list[tuple[int, int, _Plan]] = []
    most: float = inf
    for lookups, of_same in reversed(plans.items()):
        for plan in of_same:
            members_taken = _members(plan, most)
            found.append((lookups, members_taken, plan))
            most = min(most, HARDLY_MORE * members_taken)
    return min((each for each in found if each[1] <= most), key=itemgetter(0, 1))[2]


def _plans(
    stretches: Sequence[Ports], opened: Sequence[Opened], opened_in: Sequence[frozenset[int]]
) -> dict[int, list[_Plan]]:
    """Return plans to tell who may use stretches, by the look-ups of each."""
    reaches, count = find_reaches(stretches, opened), len(stretches)
    plans: defaultdict[int, list[_Plan]] = defaultdict(list)
    # More reaches than members are allowed do not keep to them: most look-ups take the fewest.
    worth_it = PORT_LOOKUPS if len(reaches) <= PORT_MEMBERS else PORT_LOOKUPS[-1:]
    for lookups in worth_it if reaches else ():
        plans[lookups].append(partial(_port_sets, reaches, lookups, count))
        if lookups > 1:
            plans[lookups].append(partial(_single_reaches_apart, reaches, lookups, count))
    if 1 in PORT_LOOKUPS or not reaches:
        plans[1].append(partial(_unions, opened_in, opened))
    sources = max(map(len, opened_in), default=0)
    if sources > 1 and (sources in PORT_LOOKUPS or sources in OWN_LOOKUPS or not reaches):
        plans[sources].append(partial(_one_by_one, opened_in, opened))
    return dict(sorted(plans.items()))


def _unions(opened_in: Iterable[frozenset[int]], opened: Sequence[Opened]) -> Iterator[_Union]:
    """Yield a union for each stretch."""
    sizes: dict[frozenset[int], int] = {}
    for stretch, numbers in enumerate(opened_in):
        if numbers not in sizes:
            sizes[numbers] = len(_networks(numbers, opened))
        yield _Union((stretch,), numbers, sizes[numbers])


def _one_by_one(opened_in: Iterable[frozenset[int]], opened: Sequence[Opened]) -> Iterator[_Union]:
    """Yield the own set of each source of each stretch."""
    for stretch, numbers in enumerate(opened_in):
        for number in sorted(numbers):
            yield _Union((stretch,), frozenset((number,)), len(opened[number].networks))


def _networks(numbers: Iterable[int], opened: Sequence[Opened]) -> set[str]:
    return set[str]().union(*(opened[number].networks for number in numbers))


def _single_reaches_apart(
    reaches: Sequence[Reach], lookups: int, count: int
) -> Iterator[_PortSet]:
    """Yield the set of the networks with a single reach, then the sets of all others."""
    times = Counter(reach.named for reach in reaches)
    several = [reach for reach in reaches if times[reach.named] > 1]
    yield from _port_sets([reach for reach in reaches if times[reach.named] == 1], 1, count)
    yield from _port_sets(several, lookups - 1, count)


def _members(plan: _Plan, most: float) -> int:
    """Count the members of all sets, of equal ones once; counting ends beyond `most`."""
    members, seen = 0, set[frozenset[object]]()
    for one in plan():
        content = one.content
        if content not in seen:
            seen.add(content)
            members += one.size
            if members > most:
                break
    return members


def _borders(reaches: Iterable[Reach], lookups: int) -> list[int]:
    """Return the first stretches of sections where no network has more reaches than look-ups."""
    found = [0]
    ends: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for reach in reaches:
        earlier = ends[reach.named]
        if len(earlier) >= lookups and earlier[-lookups] > found[-1]:
            found.append(reach.stretches.start)
        earlier.append(reach.stretches.stop)
    return found


def _port_sets(reaches: Sequence[Reach], lookups: int, count: int) -> Iterator[_PortSet]:
    """Yield the sets of each section: that of every network's first reach there, and so on."""
    coming, borders = deque(reaches), _borders(reaches, lookups)
    inside: list[Reach] = []
    for begin, end in pairwise((*borders, count)):
        inside = [reach for reach in inside if reach.stretches.stop > begin]
        while coming and coming[0].stretches.start < end:
            inside.append(coming.popleft())
        sets: list[list[Reach]] = []
        met: Counter[tuple[int, ...]] = Counter()
        for reach in inside:
            if met[reach.named] == len(sets):
                sets.append([])
            sets[met[reach.named]].append(reach)
            met[reach.named] += 1
        yield from (_PortSet(range(begin, end), held) for held in sets)


def _look_up(
    one: _PortSet | _Union, opened: Sequence[Opened], make_set: MakeSet
) -> Callable[[Ports], Match]:
    """Make a set, unless a source has it already; return what looks it up for a stretch."""
    if isinstance(one, _Union):
        plain = _plain_match(one.content, _networks(one.content, opened), opened, make_set)
        return lambda _: plain
    if one.is_plain:
        common = set(one.reaches[0].named).intersection(*(reach.named for reach in one.reaches))
        networks = set(chain(*(reach.networks for reach in one.reaches)))
        plain = _plain_match(common, networks, opened, make_set)
        return lambda _: plain
    name = make_set(opened[0].services[0].protocol, _entries(one.reaches))
    return lambda ports: SourcePortsSet(name, ports.first, ports.last)


def _plain_match(
    numbers: Iterable[int], networks: set[str], opened: Sequence[Opened], make_set: MakeSet
) -> Match:
    """Return the match of a source that is just these networks, or that of a union."""
    own = (opened[number] for number in sorted(numbers))
    found = (each.match for each in own if networks == set(each.networks))
    return next(found, None) or union(make_set, networks)


def _entries(reaches: Iterable[Reach]) -> Iterator[str]:
    for reach in reaches:
        for network in reach.networks:
            yield with_reach(network, *reach.ports)
