"""Where a decision tree divides the ports, and where on the way it asks who a packet is from.

Where services begin and end they cut the ports into stretches, each open to the same services in
all of it. A part of the ports has ways to smaller parts, each of which takes a third of the
stretches that are left, and the last few stretches are its own. So the parts that a packet reaches
late have few below them, and every packet pays about the same.

Sources are looked up in a packet's own stretch. Where many ranges overlap, their sources are then
members of the sets of many stretches; there are fewer of them if a range is asked for on the way,
in a part that it holds all of.
"""

from collections.abc import Container, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct

from reyes.net import Ports, Service

LEAF_SERVICES = 4
"""A part looks at so many stretches of one port, or half as many longer ones, one by one."""

SHARE = 3
"""A way takes this part of what is left. 1,000 ports take five levels; nft allows 16 in all."""

_LAST_PORT = 65535


class Stretch(Struct, frozen=True):
    """Neighbouring ports that are open to the sources of the same services.

    Those that everybody may use have no others beside them.
    """

    ports: Ports
    services: frozenset[Ports]
    for_all: bool


class Part(Struct, frozen=True):
    """A part of the ports; the ways lead to the first of its stretches, the last are its own.

    Sources of the services of `covering`, which are open in all of it, are asked for first, and
    no more below.
    """

    ports: Ports
    covering: frozenset[Ports]
    ways: tuple["Part", ...]
    stretches: tuple[Stretch, ...]

    def looked_up(self) -> Iterator[frozenset[Ports]]:
        """Yield the services of each look-up of sources, here and below."""
        if self.covering:
            yield self.covering
        yield from (stretch.services for stretch in self.stretches)
        for way in self.ways:
            yield from way.looked_up()


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


def divide(stretches: Sequence[Stretch], lookups: int) -> Part:
    """Divide all ports so that sources are looked up so often at most on a packet's way.

    The last time that is in a stretch of its own, and from one time to the next the number of
    stretches that are left is divided by the same factor.
    """
    ask_at = [len(stretches) ** (number / lookups) for number in range(1, lookups)]
    return _divide(part_of(stretches[0].ports, 0, _LAST_PORT), stretches, ask_at)


def _divide(ports: Ports, stretches: Sequence[Stretch], ask_at: Sequence[float]) -> Part:
    """Divide a part; `ask_at` are the numbers of stretches from which on covering is asked for."""
    later = [number for number in ask_at if number < len(stretches)]
    covering = frozenset[Ports]()
    if len(later) < len(ask_at) and len(stretches) > 1:
        covering = _covering(ports, stretches)
        stretches = [
            Stretch(stretch.ports, left, stretch.for_all)
            for stretch in stretches
            if (left := stretch.services - covering)
        ]
    ways: list[Part] = []
    first = ports.first
    while len(stretches) > 1 and sum(map(_weight, stretches)) > LEAF_SERVICES:
        share = max(1, LEAF_SERVICES // 2, len(stretches) // SHARE)
        taken, stretches = stretches[:share], stretches[share:]
        own = part_of(ports, first, taken[-1].ports.last)
        ways.append(_divide(own, taken, later))
        first = own.last + 1
    return Part(ports, covering, tuple(ways), tuple(stretches))


def _covering(ports: Ports, stretches: Sequence[Stretch]) -> frozenset[Ports]:
    """Return the services that are open in all of a part.

    One stretch that is not open to everybody tells them: they are in each such stretch.
    """
    shut = (stretch for stretch in stretches if not stretch.for_all)
    return frozenset(
        service
        for service in next(shut, stretches[0]).services
        if service.first <= ports.first and ports.last <= service.last
    )


def _weight(stretch: Stretch) -> int:
    return 1 if stretch.ports.first == stretch.ports.last else 2
