"""Which sets tell who may use which ports, where the ranges of several sources overlap.

The ports that a network may use without a gap are its reach. A set of networks with their reaches
tells by one look-up who may use a stretch of ports: whose reach holds it (`entries` has how a
reach is written). A network is in a set once, so a set is for a section of neighbouring stretches
in which no network has a second reach. If packets are looked up twice a section has two such sets,
and goes on until a network has a third reach.

Networks of a few wide reaches would be in the sets of all sections that others need. So there are
other plans besides, and the one with the fewest members is taken: those of one reach apart from
the others, or a union for each stretch, of which many may be the same.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, pairwise
from math import inf

from msgspec import Struct

from reyes.net import Ports
from reyes.netfilter.entries import with_reach
from reyes.netfilter.iptables import Match, SourcePortsSet
from reyes.netfilter.rules import MakeSet, grouped, union

PORT_LOOKUPS = range(1, 7)
"""How often the source of a packet may be looked up for its port."""

PORT_MEMBERS = 200_000
"""So many members all sets for the ports of a protocol may have; for more, look-ups are added.

They take about 10 MB of the kernel's memory, and half a second to make.
"""

HARDLY_MORE = 1.2
"""Where no number of look-ups keeps to that, one does with so many times the fewest members."""


class Opened(Struct, frozen=True):
    """Services that are open to the same networks, which a match tells."""

    match: Match
    services: Sequence[Ports]
    networks: Sequence[str]


class _Reach(Struct, frozen=True):
    """A reach of networks that are named together, and the numbers of the stretches in it.

    `named` are the numbers of what is opened to them: who they are.
    """

    named: tuple[int, ...]
    networks: Sequence[str]
    ports: tuple[int, int]
    stretches: range


class _PortSet(Struct, frozen=True):
    """A section of stretches, and reaches that one set holds, in the order of their firsts."""

    section: range
    reaches: Sequence[_Reach]

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


_Plan = Callable[[], Iterator[_PortSet]]


def port_matches(
    stretches: Sequence[Ports], opened: Sequence[Opened], make_set: MakeSet
) -> dict[Ports, list[Match]]:
    """Make the sets for stretches of ports, and return the look-ups of each.

    The stretches come in their order, and no service begins or ends inside of one.
    """
    found: dict[Ports, list[Match]] = {ports: [] for ports in stretches}
    made: dict[frozenset[object], Callable[[Ports], Match]] = {}
    for port_set in _choose(_find_reaches(stretches, opened), len(stretches))():
        content = port_set.content
        if content not in made:
            made[content] = _look_up(port_set, opened, make_set)
        for number in _held(port_set):
            found[stretches[number]].append(made[content](stretches[number]))
    return found


def _find_reaches(stretches: Sequence[Ports], opened: Sequence[Opened]) -> list[_Reach]:
    """Find what each network may use, in the order of the first stretches."""
    firsts = [ports.first for ports in stretches]
    found: list[_Reach] = []
    for named, networks in _alike(opened).items():
        for first, last in _joined(chain(*(opened[number].services for number in named))):
            inside = range(bisect_left(firsts, first), bisect_right(firsts, last))
            if inside:
                found.append(_Reach(named, networks, (first, last), inside))
    return sorted(found, key=lambda reach: reach.stretches.start)


def _alike(opened: Sequence[Opened]) -> dict[tuple[int, ...], list[str]]:
    """Return the networks that the same entries of `opened` name, by the numbers of these."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for number, entry in enumerate(opened):
        for network in entry.networks:
            numbers[network].append(number)
    return grouped(numbers, lambda network: tuple(numbers[network]))


def _joined(services: Iterable[Ports]) -> list[tuple[int, int]]:
    """Return first and last ports of what services leave no gap in."""
    found: list[tuple[int, int]] = []
    for service in sorted(services):
        first, last = service.first, service.last
        if found and first <= found[-1][1] + 1:
            first, before = found.pop()
            last = max(last, before)
        found.append((first, last))
    return found


def _choose(reaches: Sequence[_Reach], count: int) -> _Plan:
    """Choose a plan of as few look-ups as the members allow, and of those that of the fewest."""
    for lookups in PORT_LOOKUPS:
        plans = _plans(reaches, lookups, count)
        members = [_members(plan, PORT_MEMBERS) for plan in plans]
        if min(members) <= PORT_MEMBERS:
            return plans[members.index(min(members))]
    found: list[tuple[int, _Plan]] = []
    most: float = inf
    for lookups in reversed(PORT_LOOKUPS):
        for plan in _plans(reaches, lookups, count):
            found.append((_members(plan, most), plan))
            most = min(most, HARDLY_MORE * found[-1][0])
    return next(plan for members, plan in reversed(found) if members <= most)


def _plans(reaches: Sequence[_Reach], lookups: int, count: int) -> list[_Plan]:
    """Return ways to tell the reaches of so many stretches by so many look-ups."""
    usual = partial(_port_sets, reaches, _borders(reaches, lookups), count)
    if lookups == 1:
        return [usual, partial(_port_sets, reaches, range(count), count)]
    return [usual, partial(_apart, reaches, lookups, count)]


def _apart(reaches: Sequence[_Reach], lookups: int, count: int) -> Iterator[_PortSet]:
    """Yield a set of the networks with one reach, and those of the others."""
    times = Counter(reach.named for reach in reaches)
    several = [reach for reach in reaches if times[reach.named] > 1]
    yield from _port_sets([reach for reach in reaches if times[reach.named] == 1], [0], count)
    yield from _port_sets(several, _borders(several, lookups - 1), count)


def _members(plan: _Plan, most: float) -> int:
    """Count the members of all sets, of equal ones once; counting ends beyond `most`."""
    members, seen = 0, set[frozenset[object]]()
    for port_set in plan():
        if port_set.content not in seen:
            seen.add(port_set.content)
            members += port_set.size
            if members > most:
                break
    return members


def _borders(reaches: Iterable[_Reach], lookups: int) -> list[int]:
    """Return the first stretches of sections where no network has more reaches than look-ups."""
    found = [0]
    ends: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for reach in reaches:
        earlier = ends[reach.named]
        if len(earlier) >= lookups and earlier[-lookups] > found[-1]:
            found.append(reach.stretches.start)
        earlier.append(reach.stretches.stop)
    return found


def _port_sets(
    reaches: Sequence[_Reach], borders: Sequence[int], count: int
) -> Iterator[_PortSet]:
    """Yield the sets of each section: that of every network's first reach there, and so on."""
    coming = deque(reaches)
    inside: list[_Reach] = []
    for begin, end in pairwise((*borders, count)):
        inside = [reach for reach in inside if reach.stretches.stop > begin]
        while coming and coming[0].stretches.start < end:
            inside.append(coming.popleft())
        sets: list[list[_Reach]] = []
        met: Counter[tuple[int, ...]] = Counter()
        for reach in inside:
            if met[reach.named] == len(sets):
                sets.append([])
            sets[met[reach.named]].append(reach)
            met[reach.named] += 1
        yield from (_PortSet(range(begin, end), held) for held in sets)


def _look_up(
    port_set: _PortSet, opened: Sequence[Opened], make_set: MakeSet
) -> Callable[[Ports], Match]:
    """Make a set, if it is not there; return what looks it up for a stretch."""
    if port_set.is_plain:
        networks = chain(*(reach.networks for reach in port_set.reaches))
        plain = _own_match(port_set, opened) or union(make_set, networks)
        return lambda _: plain
    name = make_set(opened[0].services[0].protocol, _entries(port_set.reaches))
    return lambda ports: SourcePortsSet(name, ports.first, ports.last)


def _own_match(port_set: _PortSet, opened: Sequence[Opened]) -> Match | None:
    """Return the match that tells just the networks of a plain set, if there is one."""
    common = set(port_set.reaches[0].named).intersection(*(r.named for r in port_set.reaches))
    own = (opened[number] for number in sorted(common))
    return next((each.match for each in own if len(each.networks) == port_set.size), None)


def _held(port_set: _PortSet) -> Iterator[int]:
    """Yield the stretches of a section that some reach in a set holds."""
    first, after = port_set.section.start, port_set.section.stop
    for reach in port_set.reaches:
        yield from range(max(first, reach.stretches.start), min(after, reach.stretches.stop))
        first = max(first, reach.stretches.stop)


def _entries(reaches: Iterable[_Reach]) -> Iterator[str]:
    for reach in reaches:
        for network in reach.networks:
            yield with_reach(network, *reach.ports)
