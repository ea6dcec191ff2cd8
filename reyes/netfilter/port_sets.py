"""Which sets tell who may use which ports, where the ranges of several sources overlap.

The ports that a source may use without a gap are its reach. A set of sources with their reaches
tells by one look-up who may use a stretch of ports: whose reach holds it (`entries` has how a
reach is written). A source is in a set once, so a set is for neighbouring stretches in which no
source has a second reach. If packets look twice there are two such sets, and they are for more
stretches: until a source has a third one.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise

from msgspec import Struct

from reyes.net import Ports
from reyes.netfilter.entries import with_reach
from reyes.netfilter.iptables import Match, SourcePortsSet, SourceSet
from reyes.netfilter.rules import MakeSet

LOOKUPS = range(1, 7)
"""How often the source of a packet may be looked up for its port."""

PORT_MEMBERS = 200_000
"""There are as few look-ups as keep the sets for the ports of a protocol to so many members.

These take about 10 MB of the kernel's memory, and a second to make.
"""

HARDLY_MORE = 1.2
"""Look-ups are spared for so many times the least members."""


class Opened(Struct, frozen=True):
    """Services that are open to sources, which share a match."""

    services: list[Ports]
    sources: tuple[str, ...]


class _Reach(Struct, frozen=True):
    """A reach of sources, and the numbers of the stretches in it.

    `owner` is a number of these sources; all their reaches have it.
    """

    owner: int
    sources: tuple[str, ...]
    first_port: int
    last_port: int
    first: int
    last: int


class _PortSet(Struct, frozen=True):
    """The stretches that one set is for, by number, and the reaches in it."""

    stretches: range
    reaches: list[_Reach]


def look_ups(
    stretches: Sequence[Ports], opened: Mapping[Match, Opened], make_set: MakeSet
) -> dict[Ports, list[Match]]:
    """Make the sets for stretches of ports, and return what each of these has to look up.

    The stretches come in their order, and no service begins or ends inside of one.
    """
    reaches = _find_reaches(stretches, opened)
    found: dict[Ports, list[Match]] = {ports: [] for ports in stretches}
    for port_set in _split(reaches, _few_borders(reaches), len(stretches)):
        for number, match in _matches(port_set, stretches, make_set):
            found[stretches[number]].append(match)
    return found


def _find_reaches(stretches: Sequence[Ports], opened: Mapping[Match, Opened]) -> list[_Reach]:
    """Find what each source may use, in the order of the first stretches."""
    firsts = [ports.first for ports in stretches]
    found: list[_Reach] = []
    for owner, (matches, sources) in enumerate(_same(opened).items()):
        services = [service for match in matches for service in opened[match].services]
        for first_port, last_port in _joined(services):
            first, after = bisect_left(firsts, first_port), bisect_right(firsts, last_port)
            if first < after:
                found.append(_Reach(owner, sources, first_port, last_port, first, after - 1))
    return sorted(found, key=lambda reach: reach.first)


def _same(opened: Mapping[Match, Opened]) -> dict[tuple[Match, ...], tuple[str, ...]]:
    """Return the sources that belong to the same matches."""
    matches = list(opened)
    matches_of: defaultdict[str, list[int]] = defaultdict(list)
    for number, match in enumerate(matches):
        for source in opened[match].sources:
            matches_of[source].append(number)
    found: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for source, numbers in matches_of.items():
        found[tuple(numbers)].append(source)
    return {tuple(matches[n] for n in numbers): tuple(own) for numbers, own in found.items()}


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


def _few_borders(reaches: Sequence[_Reach]) -> list[int]:
    """Choose borders of parts for as few look-ups as the members allow.

    Where no number of look-ups keeps to them, it is for as few as take hardly more members than
    the least that can be.
    """
    found: list[tuple[int, list[int]]] = []
    for lookups in LOOKUPS:
        borders = _borders(reaches, lookups)
        members = _members_between(borders, reaches)
        if members <= PORT_MEMBERS:
            return borders
        found.append((members, borders))
    most = HARDLY_MORE * min(members for members, _ in found)
    return next(borders for members, borders in found if members <= most)


def _borders(reaches: Iterable[_Reach], lookups: int) -> list[int]:
    """Return the first stretches of parts in which no source has more reaches than look-ups."""
    found = [0]
    ends: defaultdict[int, list[int]] = defaultdict(list)
    for reach in reaches:
        earlier = ends[reach.owner]
        if len(earlier) >= lookups and earlier[-lookups] >= found[-1]:
            found.append(reach.first)
        earlier.append(reach.last)
    return found


def _parts(borders: Sequence[int], reach: _Reach) -> range:
    """Return the numbers of the parts that a reach meets."""
    return range(bisect_right(borders, reach.first) - 1, bisect_right(borders, reach.last))


def _members_between(borders: Sequence[int], reaches: Iterable[_Reach]) -> int:
    """Count the entries of all sets: a source is in one for each part that a reach meets."""
    return sum(len(reach.sources) * len(_parts(borders, reach)) for reach in reaches)


def _split(
    reaches: Iterable[_Reach], borders: Sequence[int], stretches: int
) -> Iterator[_PortSet]:
    """Yield the sets of each part: that of the first reach there of every source, and so on."""
    parts = [range(*ends) for ends in pairwise((*borders, stretches))]
    found: list[list[_PortSet]] = [[] for _ in parts]
    met: list[defaultdict[int, int]] = [defaultdict(int) for _ in parts]
    for reach in reaches:
        for part in _parts(borders, reach):
            which = met[part][reach.owner]
            met[part][reach.owner] += 1
            if which == len(found[part]):
                found[part].append(_PortSet(parts[part], []))
            found[part][which].reaches.append(reach)
    for sets in found:
        yield from sets


def _matches(
    port_set: _PortSet, stretches: Sequence[Ports], make_set: MakeSet
) -> Iterator[tuple[int, Match]]:
    """Make a set; yield the stretches that somebody in it may use, and what they look up.

    Where all of its sources may use all of them, it holds no ports.
    """
    first, after = port_set.stretches.start, port_set.stretches.stop
    if all(reach.first <= first and after <= reach.last + 1 for reach in port_set.reaches):
        plain = SourceSet(make_set("union", chain(*(reach.sources for reach in port_set.reaches))))
        yield from ((number, plain) for number in port_set.stretches)
        return
    name = make_set("ports", _entries(port_set.reaches))
    for reach in port_set.reaches:  # in the order of their first stretches
        for number in range(max(first, reach.first), min(after, reach.last + 1)):
            ports = stretches[number]
            yield number, SourcePortsSet(name, ports.first, ports.last)
        first = max(first, reach.last + 1)


def _entries(reaches: Iterable[_Reach]) -> Iterator[str]:
    for reach in reaches:
        for source in reach.sources:
            yield with_reach(source, reach.first_port, reach.last_port)
