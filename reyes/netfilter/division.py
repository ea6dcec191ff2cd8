"""Where a decision tree divides the ports.

Where services begin and end they cut the ports into stretches, each open to the same services in
all of it. A part of the ports has ways to smaller parts, each of which takes a third of the
stretches that are left, and the last few stretches are its own. So the parts that a packet reaches
late have few below them, and every packet pays about the same.
"""

from collections.abc import Container, Sequence
from itertools import pairwise

from msgspec import Struct

from reyes.net import LAST_PORT, Ports, Service

LEAF_WEIGHT = 4
"""A part may look at stretches of this weight one by one: one port weighs 1, more weigh 2."""

SHARE = 3
"""A way takes a third of what is left: 1,000 ports take five levels, and nft allows 16 in all."""


class Stretch(Struct, frozen=True):
    """Neighbouring ports that are open to the sources of the same services.

    Where everybody may use it, `services` are only those that are open to everybody.
    """

    ports: Ports
    services: frozenset[Ports]
    for_all: bool


class Part(Struct, frozen=True):
    """A part of the ports; the ways lead to the first of its stretches, the last are its own."""

    ports: Ports
    ways: tuple["Part", ...]
    stretches: tuple[Stretch, ...]


def part_of(ports: Ports, first: int, last: int) -> Ports:
    """Return a part of the ports of the same protocol."""
    return Ports(protocol=ports.protocol, first=first, last=last)


def cut(services: Sequence[Ports], for_all: Container[Service]) -> list[Stretch]:
    """Cut the ports of a protocol where services begin and end; everybody may use `for_all`."""
    beginning: dict[int, list[Ports]] = {}
    for service in services:
        beginning.setdefault(service.first, []).append(service)
        beginning.setdefault(service.last + 1, [])
    found: list[Stretch] = []
    meeting: list[Ports] = []
    for first, after in pairwise(sorted(beginning)):
        meeting = [s for s in (*meeting, *beginning[first]) if first <= s.last]
        free = [service for service in meeting if service in for_all]
        opened = frozenset(free or meeting)
        if not opened:
            continue
        joined = bool(found) and (found[-1].ports.last + 1, found[-1].services) == (first, opened)
        begin = found.pop().ports.first if joined else first
        found.append(Stretch(part_of(services[0], begin, after - 1), opened, bool(free)))
    return found


def divide(stretches: Sequence[Stretch]) -> Part:
    """Divide all ports, of which these stretches, in their order, are open to somebody."""
    return _divide(part_of(stretches[0].ports, 0, LAST_PORT), stretches)


def _divide(ports: Ports, stretches: Sequence[Stretch]) -> Part:
    ways: list[Part] = []
    first = ports.first
    while len(stretches) > 1 and sum(map(_weight, stretches)) > LEAF_WEIGHT:
        share = max(1, LEAF_WEIGHT // 2, len(stretches) // SHARE)
        taken, stretches = stretches[:share], stretches[share:]
        own = part_of(ports, first, taken[-1].ports.last)
        ways.append(_divide(own, taken))
        first = own.last + 1
    return Part(ports, tuple(ways), tuple(stretches))


def _weight(stretch: Stretch) -> int:
    return 1 if stretch.ports.first == stretch.ports.last else 2
