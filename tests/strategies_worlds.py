"""Small worlds with a host in them, for `aim` to draw packets for.

Addresses come from few VPCs that overlap and touch, and rules from few ports, so that members,
strangers, own and foreign VPCs meet all the time. All strategies are made once, at import:
Hypothesis spends most of its time on making them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from ipaddress import ip_network
from typing import Any, Literal, TypeVar

from hypothesis import strategies as st
from msgspec.structs import replace

from reyes.config import FailsafeConfig, FollowerConfig
from reyes.host import Host, configured_host
from reyes.net import Everything, Icmp, Ports, Protocol, Service, canonical
from reyes.netfilter.division import LEAF_WEIGHT
from reyes.netfilter.port_sets import PORT_LOOKUPS, PORT_MEMBERS
from reyes.netfilter.rules import LOOKUPS, PLAIN_RULES
from reyes.netfilter.tree import SERVICE_ENTRIES, WALKED_SERVICES
from reyes.ruleset import (
    Content,
    GroupReference,
    Ingress,
    Interface,
    PrefixList,
    Region,
    SecurityGroup,
    Vpc,
)

T = TypeVar("T")

ACCOUNT = "111111111111"
INSTANCE = "i-00000000"
NEIGHBOUR = "i-00000001"
ARRIVALS = ("eth0", "wg0", "tun", "tun0", "tun10", "tun110", "tunnel")
"""The interfaces that packets arrive on, besides loopback."""

VPC_CIDRS = (
    "10.0.0.0/16",
    "10.0.0.0/23",  # inside the one before, as another VPC's may be
    "10.1.0.0/16",
    "10.0.255.0/24",
    "172.16.0.0/20",
    "100.64.0.0/26",
    "2001:db8:0:100::/56",
    "2001:db8:0:180::/57",
    "2001:db8:0:200::/56",
)
EVERYTHING_HERE = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "2001:db8::/32")
FILTERED_CIDRS = (
    "10.0.0.0/8",
    "10.0.0.0/17",
    "10.1.0.4",
    "0.0.0.0/0",
    "172.16.0.0/12",
    "2001:db8::/32",
    "2001:db8:0:100::/58",
    "::/0",
)
FAILSAFES = (
    FailsafeConfig(cidr="10.1.0.0/24", protocol="tcp", port=22),
    FailsafeConfig(cidr="10.0.0.5", protocol="udp"),
    FailsafeConfig(cidr="10.0.1.0/24", protocol="icmp"),
    FailsafeConfig(cidr="172.16.0.4"),
    FailsafeConfig(cidr="2001:db8:0:200::/64", protocol="icmpv6"),
    FailsafeConfig(cidr="2001:db8:0:100::5", protocol="tcp", port=80),
)
NAMES = ("web", "default", "default", 'b"a\\s$(t) ï')
PORTS = (0, 1, 22, 80, 81, 443, 1023, 61_024, 65_534, 65_535)
TYPES = (-1, 0, 3, 8, 8, 9, 12, 128, 128, 133, 254, 255)
CODES = (-1, 0, 1, 4)
PROTOCOLS = (0, 1, 2, 6, 17, 47, 50, 51, 58, 59, 132, 136, 254, 255)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """From how many rules on the compiler makes a tree, and of what kind.

    `netfilter.tree`, `netfilter.division` and `netfilter.port_sets` have these numbers.
    """

    plain_rules: int = PLAIN_RULES
    lookups: int = LOOKUPS
    leaf_weight: int = LEAF_WEIGHT
    walked_services: int = WALKED_SERVICES
    service_entries: int = SERVICE_ENTRIES
    port_lookups: Sequence[int] = PORT_LOOKUPS
    port_members: int = PORT_MEMBERS


SMALLEST = Shape(plain_rules=0, lookups=1, leaf_weight=1)
SHAPES = (
    Shape(),
    changed(SMALLEST, port_lookups=(1,)),
    changed(SMALLEST, walked_services=0, service_entries=3000, port_lookups=(2,)),
    changed(SMALLEST, walked_services=0, service_entries=0, port_lookups=(3, 6), port_members=0),
    Shape(plain_rules=0, service_entries=0, port_members=0),
)
"""The one in use, and some that make trees of few rules as deep as those of many."""


@dataclass(frozen=True)
class World:
    """A document's content, one of its hosts with its configuration, and how to compile it."""

    content: Content
    config: FollowerConfig
    region: str | None
    shape: Shape

    @property
    def host(self) -> Host:
        return configured_host(self.config, INSTANCE, self.region)

    @property
    def home(self) -> Region:
        return self.content.regions[-1]

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return tuple(i for i in self.home.interfaces if i.instance == INSTANCE)


@dataclass(frozen=True)
class Held:
    """An interface before it has a VPC: numbers that stand for one of what there will be."""

    vpc: int
    addresses: tuple[tuple[int, int | None], ...]
    groups: tuple[str, ...]


def some(
    values: st.SearchStrategy[T], least: int = 0, most: int = 3
) -> st.SearchStrategy[tuple[T, ...]]:
    """A few different ones, sorted."""
    return st.lists(values, min_size=least, max_size=most, unique=True).map(
        lambda found: tuple(sorted(found, key=repr))
    )


def mostly(usual: st.SearchStrategy[T], other: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The other one in one of four; Hypothesis drops what it is told twice in `|`."""
    return st.integers(0, 3).flatmap(lambda number: other if number == 3 else usual)


def identifier(prefix: str, number: int) -> str:
    return f"{prefix}-{number:08x}"


def network_near(cidr: str, prefix: int, offset: int) -> str:
    """A network that holds an address of `cidr`; 0 to 2 stand for everything, half, the same."""
    near = ip_network(cidr)
    length = min({2: near.prefixlen}.get(prefix, prefix), near.max_prefixlen)
    return canonical(ip_network((near.network_address + offset, length), strict=False))


NETWORKS = st.builds(
    network_near,
    st.sampled_from(VPC_CIDRS),
    st.sampled_from([0, 1, 2, 2, 2, 128, 128, 128]) | st.integers(8, 64),
    st.sampled_from([0, 4, 5, 256]),
)
PORT_RANGES = st.builds(
    lambda protocol, one, other: Ports(protocol, min(one, other), max(one, other)),
    st.sampled_from(["tcp", "tcp", "udp"]),
    st.sampled_from(PORTS),
    st.sampled_from(PORTS),
)
SERVICES: st.SearchStrategy[Service] = st.one_of(
    PORT_RANGES,
    st.builds(
        Icmp, st.sampled_from(["icmp", "icmpv6"]), st.sampled_from(TYPES), st.sampled_from(CODES)
    ),
    st.sampled_from([Everything(), *map(Protocol, PROTOCOLS)]),
)
GROUP_IDS = st.integers(0, 4).map(lambda number: identifier("sg", number))
REFERENCES = st.builds(
    GroupReference,
    id=GROUP_IDS,
    peering=st.sampled_from([None, None, None, None, "deleted"]),
)
RULES = st.builds(
    Ingress,
    service=SERVICES,
    cidrs=some(NETWORKS, most=2),
    prefix_lists=some(st.sampled_from(["pl-00000000", "pl-00000001"]), most=1),
    groups=some(REFERENCES, most=3),
)
FEW_RULES = some(RULES, least=1, most=5)
MANY_PORTS = st.builds(
    lambda services, cidrs: tuple(Ingress(service=one, cidrs=cidrs) for one in services),
    some(PORT_RANGES, least=6, most=12),
    some(NETWORKS, least=1, most=1),
)
OVERLAPPING_PORTS = some(
    st.builds(
        Ingress, service=PORT_RANGES, cidrs=some(NETWORKS, most=2), groups=some(REFERENCES, most=2)
    ),
    least=3,
    most=9,
)
GROUPS = st.builds(
    SecurityGroup,
    id=st.just(""),
    name=st.sampled_from(NAMES),
    vpc=st.just("vpc-00000000"),
    account=st.just(ACCOUNT),
    tag=st.sampled_from([None, "", "front"]),
    ingress=mostly(FEW_RULES, MANY_PORTS | OVERLAPPING_PORTS),
)


def held(vpcs: Sequence[int]) -> st.SearchStrategy[Held]:
    return st.builds(
        Held,
        st.sampled_from(vpcs),
        some(OFFSETS, least=1),
        mostly(some(GROUP_IDS, least=1, most=4), st.just(())),
    )


OFFSETS = st.tuples(st.integers(0, 1), st.sampled_from([4, 5, 16, 31, 255, 256, None]))
OWN_HELD = held([0, 0, 0, 1])
OWN = st.one_of(
    st.lists(OWN_HELD, min_size=1, max_size=3),
    st.builds(
        lambda primary, first, alike: [
            primary,
            first,
            *(changed(other, groups=first.groups) for other in alike),
        ],
        OWN_HELD,
        OWN_HELD,
        st.lists(OWN_HELD, min_size=1, max_size=2),
    ),
)
OTHERS = st.sampled_from([(NEIGHBOUR, 0), (NEIGHBOUR, 1), (None, None)])


def assemble(  # noqa: PLR0917 - as st.builds fills it
    name: str,
    cidrs: Sequence[tuple[str, ...]],
    groups: Sequence[SecurityGroup],
    devices: Sequence[int],
    own: Sequence[Held],
    others: Sequence[tuple[tuple[str | None, int | None], Held]],
    entries: tuple[str, ...] | None,
) -> Region:
    """Put together what was drawn apart; `entries` are those of the one known prefix list."""
    vpcs = tuple(
        Vpc(id=identifier("vpc", number), account=ACCOUNT, cidrs=associated)
        for number, associated in enumerate(cidrs)
    )
    present = [device for device in devices if device < len(own)]  # the primary always is
    holders: list[tuple[tuple[str | None, int | None], Held]] = [
        *(((INSTANCE, device), held) for device, held in zip(present, own, strict=True)),
        *others,
    ]
    return Region(
        name=name,
        vpcs=vpcs,
        groups=tuple(
            replace(group, id=identifier("sg", number)) for number, group in enumerate(groups)
        ),
        interfaces=tuple(
            Interface(
                id=identifier("eni", number),
                vpc=vpcs[held.vpc % len(vpcs)].id,
                instance=holder[0],
                device=holder[1],
                addresses=addresses(vpcs[held.vpc % len(vpcs)], held),
                groups=held.groups,
            )
            for number, (holder, held) in enumerate(holders)
        ),
        prefix_lists=() if entries is None else (PrefixList(id="pl-00000000", cidrs=entries),),
    )


def addresses(vpc: Vpc, held: Held) -> tuple[str, ...]:
    """Addresses in a VPC's networks; one without offset is a delegated prefix."""
    found = set()
    for number, offset in held.addresses:
        inside = ip_network(vpc.cidrs[number % len(vpc.cidrs)])
        if offset is None:
            length = 28 if inside.version == 4 else 80
            found.add(str(ip_network((inside.network_address + 16, length), strict=False)))
        else:
            found.add(str(inside.network_address + offset))
    return tuple(sorted(found))


def regions(name: str, *, home: bool) -> st.SearchStrategy[Region]:
    return st.builds(
        assemble,
        st.just(name),
        st.lists(some(st.sampled_from(VPC_CIDRS), least=1, most=2), min_size=1, max_size=3),
        st.lists(GROUPS, min_size=3, max_size=4),
        st.permutations([0, 1, 2, 3]),
        OWN if home else st.just([]),
        st.lists(st.tuples(OTHERS, held([0, 1, 2, 2])), min_size=2, max_size=4),
        st.none() | some(NETWORKS, most=2),
    )


def config(
    traffic: Literal["vpc", "ipsec", "interface"],
    arrivals: tuple[str, ...],
    filtered: tuple[str, ...],
    **others: Any,
) -> FollowerConfig:
    return FollowerConfig(
        traffic=traffic,
        interfaces=arrivals if traffic == "interface" else (),
        filtered_cidrs=filtered,
        **others,
    )


CONFIGS = st.builds(
    config,
    st.sampled_from(["vpc", "vpc", "interface", "ipsec"]),
    some(st.sampled_from(["eth0", "wg0", "tun+", "tun1+", "tun"]), least=1, most=2),
    st.just(EVERYTHING_HERE) | some(st.sampled_from(FILTERED_CIDRS), least=1),
    filter_table=st.sampled_from(["shared", "shared", "exclusive"]),
    denied=st.sampled_from(["drop", "reject"]),
    enforce=st.sampled_from([True, True, True, False]),
    established=st.sampled_from(["aws", "strict"]),
    failsafe=some(st.sampled_from(FAILSAFES), most=2),
    log_accept=st.booleans(),
    log_drop=st.booleans(),
)
FAR = st.tuples(regions("eu-west-1", home=False))
WORLDS = st.builds(
    World,
    st.builds(
        lambda matching, excluded, far, home: Content(
            group_matching=matching, excluded_group_names=excluded, regions=(*far, home)
        ),
        st.sampled_from(["name", "name", "tag:role", "tag:role", "id"]),
        st.sampled_from([(), (), (), *((name,) for name in sorted(set(NAMES)))]),
        mostly(FAR, st.just(())),
        regions("us-west-2", home=True),
    ),
    CONFIGS,
    st.sampled_from([None, "us-west-2"]),
    st.sampled_from(SHAPES),
)
