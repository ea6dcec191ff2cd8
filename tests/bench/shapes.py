"""Hosts with any number of inbound rules, of the shapes that are hard in different ways."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from random import Random
from typing import Literal, get_args

from reyes.config import FollowerConfig
from reyes.host import configured_host
from reyes.net import Everything, Family, Icmp, Ports, Protocol, Service
from reyes.policy import HostPolicy, resolve_content
from reyes.ruleset import (
    Content,
    GroupReference,
    Ingress,
    Interface,
    Region,
    SecurityGroup,
    Vpc,
)
from tests.bench.generator import ACCOUNT, BUSY_HOST, HOME

Shape = Literal[
    "single ports",
    "overlapping ranges",
    "ranges of 1,000 groups",
    "wide ranges of 1,000 groups",
    "one port",
    "mixed protocols",
    "single ports over IPv6",
]
SHAPES: tuple[Shape, ...] = get_args(Shape)

ADDRESSES = {Family.V4: "10.250.0.5", Family.V6: "fd00:250::5"}
ADDRESS = ADDRESSES[Family.V4]
_MEMBERS = 10
_FEW_GROUPS, _MANY_GROUPS = 50, 1000
_ICMP_MEMBER, _PROTOCOL_MEMBER = "10.10.0.25", "10.10.0.35"
"""Of groups 2 and 3, which the mixed rules let in by another type of ICMP or protocol."""
_OWN, _PEERS = "vpc-0000000a", "vpc-0000000b"


@dataclass(frozen=True, slots=True)
class Probe:
    """Packets of a protocol, by IANA number, to these ports (or of these ICMP types).

    They come from strangers, or from one member of some group.
    """

    protocol: int
    first: int
    last: int
    source: str | None = None


def family_of(shape: Shape) -> Family:
    """Return the family that the packets and members of a shape are of."""
    return Family.V6 if shape == "single ports over IPv6" else Family.V4


def rules_of(shape: Shape, count: int) -> list[tuple[Service, int]]:
    """Return so many rules: a service, and the number of the group it is open to."""
    makers = {
        "single ports": _single_ports,
        "overlapping ranges": _overlapping_ranges,
        "ranges of 1,000 groups": lambda: _each_of_its_own(_ranges()),
        "wide ranges of 1,000 groups": lambda: _each_of_its_own(_wide_ranges()),
        "one port": _one_port,
        "mixed protocols": _mixed,
        "single ports over IPv6": _single_ports,
    }
    return list(islice(makers[shape](), count))


def probes_of(shape: Shape, count: int) -> tuple[Probe, ...]:
    """Return denied packets among which is the one that costs most."""
    match shape:
        case "single ports" | "single ports over IPv6":
            return (Probe(6, 1024, 1023 + count), Probe(6, 60_000, 65_000))
        case "overlapping ranges" | "ranges of 1,000 groups" | "wide ranges of 1,000 groups":
            busiest = _busiest_port(rules_of(shape, count))
            return (Probe(6, busiest, busiest), Probe(6, 1, 65_535))
        case "one port":
            return (Probe(6, 443, 443),)
        case "mixed protocols":
            return (
                Probe(6, 1024, 1024),
                Probe(6, 1024, 2023),
                Probe(17, 2000, 5000),
                Probe(1, 40, 79),
                Probe(1, 79, 79),
                Probe(1, 79, 79, _ICMP_MEMBER),
                Probe(139, 0, 0),
                Probe(139, 0, 0, _PROTOCOL_MEMBER),
            )


def policy_with(rules: Sequence[tuple[Service, int]], family: Family = Family.V4) -> HostPolicy:
    """Return what a host with such rules, and members of one family, lets in."""
    by_service: dict[Service, list[GroupReference]] = {}
    for service, group in rules:
        by_service.setdefault(service, []).append(GroupReference(id=f"sg-{group:08x}"))
    own = SecurityGroup(
        id="sg-ffffffff",
        name="host",
        vpc=_OWN,
        account=ACCOUNT,
        ingress=tuple(
            Ingress(service=service, groups=tuple(groups))
            for service, groups in by_service.items()
        ),
    )
    numbers = sorted({group for _, group in rules})
    region = Region(
        name=HOME,
        vpcs=(
            Vpc(id=_OWN, account=ACCOUNT, cidrs=("10.250.0.0/16",)),
            Vpc(id=_PEERS, account=ACCOUNT, cidrs=("10.10.0.0/15",)),
        ),
        groups=(*(_group(number) for number in numbers), own),
        interfaces=(
            *(_interface(number, family) for number in numbers),
            Interface(
                id="eni-ffffffff",
                vpc=_OWN,
                instance=BUSY_HOST,
                device=0,
                addresses=(ADDRESSES[family],),
                groups=(own.id,),
            ),
        ),
    )
    content = Content(group_matching="id", excluded_group_names=(), regions=(region,))
    follower = FollowerConfig(filtered_cidrs=("10.0.0.0/8", "fd00::/8"))
    return resolve_content(content, configured_host(follower, BUSY_HOST, HOME))


def _group(number: int) -> SecurityGroup:
    return SecurityGroup(
        id=f"sg-{number:08x}", name=f"app-{number:04}", vpc=_PEERS, account=ACCOUNT
    )


def members_of(number: int, family: Family = Family.V4) -> tuple[str, ...]:
    """Return the addresses of a group's members."""
    first = number * _MEMBERS
    start = ip_address("10.10.0.0" if family is Family.V4 else "fd00:10::")
    return tuple(sorted(str(start + n) for n in range(first, first + _MEMBERS)))


def _interface(number: int, family: Family) -> Interface:
    """Give a group's members to one interface."""
    return Interface(
        id=f"eni-{number:08x}",
        vpc=_PEERS,
        addresses=members_of(number, family),
        groups=(f"sg-{number:08x}",),
    )


def _single_ports() -> Iterator[tuple[Service, int]]:
    for number in range(_MANY_GROUPS):
        yield _tcp(1024 + number, 1024 + number), number % _FEW_GROUPS


def _overlapping_ranges() -> Iterator[tuple[Service, int]]:
    """Two groups for each of 500 ranges."""
    for number, service in enumerate(_ranges()):
        yield service, number % _FEW_GROUPS
        yield service, (number + 1) % _FEW_GROUPS


def _each_of_its_own(services: Iterator[Service]) -> Iterator[tuple[Service, int]]:
    """Open each service to another group."""
    for group, service in enumerate(services):
        yield service, group


def _ranges() -> Iterator[Service]:
    """Yield different ranges of ten ports to a third of all, for ever."""
    random, seen = Random(1), set[Service]()
    while True:
        first = random.randrange(1, 65_000)
        service = _tcp(first, min(65_535, first + int(10 * 2000 ** random.random())))
        if service not in seen:
            seen.add(service)
            yield service


def _wide_ranges() -> Iterator[Service]:
    """Yield ranges between any two ports."""
    random = Random(1)
    while True:
        first, last = sorted(random.sample(range(1, 65_536), 2))
        yield _tcp(first, last)


def _one_port() -> Iterator[tuple[Service, int]]:
    for number in range(_MANY_GROUPS):
        yield _tcp(443, 443), number


def _mixed() -> Iterator[tuple[Service, int]]:
    for number in range(0, _MANY_GROUPS, 5):
        yield _tcp(1024 + number, 1024 + number), number
        yield Ports(protocol="udp", first=2000 + 3 * number, last=2020 + 3 * number), number + 1
        kind, code = 40 + number // 5 % 40, number // 200 - 1
        yield Icmp(protocol="icmp", type=kind, code=code), number + 2
        yield Protocol(number=100 + number // 5 % 40), number + 3
        yield Everything(), number + 4


def _busiest_port(rules: Sequence[tuple[Service, int]]) -> int:
    """Return a port that most ranges hold."""
    ranges = [service for service, _ in rules if isinstance(service, Ports)]
    return max(
        (entry.first for entry in ranges),
        key=lambda port: sum(entry.first <= port <= entry.last for entry in ranges),
    )


def _tcp(first: int, last: int) -> Ports:
    return Ports(protocol="tcp", first=first, last=last)
