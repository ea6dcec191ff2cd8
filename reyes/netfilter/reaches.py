"""What networks may use without a gap, where services are open to several of them.

The ports that a network may use without a gap are its reach. No service begins or ends inside of a
stretch of ports (`division`), so a reach is told in stretches as well.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

from msgspec import Struct

from reyes.net import Ports
from reyes.netfilter.iptables import Match
from reyes.netfilter.rules import grouped

MOST_REACHES = 1_000_000
"""So many are looked at: more would take long to work out."""


class Opened(Struct, frozen=True):
    """Services that are open to the same networks, which a match tells."""

    match: Match
    services: Sequence[Ports]
    networks: Sequence[str]


class Reach(Struct, frozen=True):
    """A reach of networks that the same rules name, and the indexes of the stretches in it.

    `named` are the indexes of all that is opened to these networks, and identify them.
    """

    named: tuple[int, ...]
    networks: Sequence[str]
    ports: tuple[int, int]
    stretches: range


def find_reaches(stretches: Sequence[Ports], opened: Sequence[Opened]) -> list[Reach]:
    """Find what each network may use, in the order of the first stretches; nothing if too many."""
    firsts = [ports.first for ports in stretches]
    found: list[Reach] = []
    for named, networks in _alike(opened).items():
        for first, last in _joined(chain(*(opened[number].services for number in named))):
            inside = range(bisect_left(firsts, first), bisect_right(firsts, last))
            if inside:
                found.append(Reach(named, networks, (first, last), inside))
        if len(found) > MOST_REACHES:
            return []
    return sorted(found, key=lambda reach: reach.stretches.start)


def find_opened(stretches: Sequence[Ports], opened: Sequence[Opened]) -> list[frozenset[int]]:
    """Return the indexes of what is opened in each stretch."""
    firsts = [ports.first for ports in stretches]
    found: list[set[int]] = [set() for _ in stretches]
    for number, entry in enumerate(opened):
        for first, last in _joined(entry.services):
            for inside in found[bisect_left(firsts, first) : bisect_right(firsts, last)]:
                inside.add(number)
    return [frozenset(inside) for inside in found]


def _alike(opened: Sequence[Opened]) -> dict[tuple[int, ...], list[str]]:
    """Return the networks that the same entries of `opened` name, by the indexes of these."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for number, entry in enumerate(opened):
        for network in entry.networks:
            numbers[network].append(number)
    return grouped(numbers, lambda network: tuple(numbers[network]))


def _joined(services: Iterable[Ports]) -> list[tuple[int, int]]:
    """Join services that leave no gap between them, as first and last ports."""
    found: list[tuple[int, int]] = []
    for service in sorted(services):
        first, last = service.first, service.last
        if found and first <= found[-1][1] + 1:
            first, before = found.pop()
            last = max(last, before)
        found.append((first, last))
    return found
