"""Worlds of any size, the same from the same seed.

Six regions of unequal size with one VPC each. The same group names occur in every region, as in
a fleet that grew by copying: a rule of one region means the members of all six.

Each instance has one interface. It carries five of the 200 common groups, in turn, so that they
are of equal size, and one of the others. A group's number comes first in its name, so that sets
of the same members have labels of their own. With 10,000 instances and four addresses for each, as
hosts of containers have, the common groups have 1,000 members each.

A VPC apart, so that none of these members is local to them, holds two hosts: one with the 1,000
inbound rules that AWS allows, and one with three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address
from random import Random

from msgspec.structs import replace as _replace

from reyes.net import Ports
from reyes.ruleset import (
    Content,
    GroupReference,
    Ingress,
    Interface,
    Region,
    SecurityGroup,
    Vpc,
)

ACCOUNT = "123456789012"
SHARES = {
    "ap-northeast-1": 0.08,
    "ap-southeast-1": 0.10,
    "eu-central-1": 0.14,
    "eu-west-1": 0.18,
    "us-east-1": 0.30,
    "us-west-2": 0.20,
}
HOME, LARGEST = "us-west-2", "us-east-1"
BUSY_HOST, QUIET_HOST = "i-0000000000000b057", "i-00000000000000001"

_HOME_VPC = "vpc-00000000000000bee"
_COMMON_GROUPS = 200
_COMMON_EACH = 5
_HOST_RULES = (200,) * 5 + (3,)
"""The inbound rules of the hosts' groups: AWS allows 1,000 in all for the groups of a host."""

_PORTS = (22, 53, 80, 123, 443, 3306, 5432, 6379, 8080, 9090, 9200, 11211)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a world is; `addresses` is the number that each interface has."""

    instances: int
    groups: int
    addresses: int = 1


SMALL = Size(1_000, 200)
MIDDLE = Size(10_000, 1_500)
LARGE = Size(50_000, 5_000)
DENSE = Size(10_000, 1_500, addresses=4)
"""The one where a host's sets hold 1,000 members."""


@cache
def make_world(size: Size, seed: int = 1) -> Content:
    """Return the world of a size."""
    random = Random(seed)
    names = (size.groups - len(_HOST_RULES)) // len(SHARES)
    regions = []
    for number, (name, share) in enumerate(SHARES.items()):
        instances = round(size.instances * share)
        extra = size.groups - len(_HOST_RULES) - names * len(SHARES) if name == HOME else 0
        region = _region(number, name, names + extra, random)
        interfaces = _interfaces(region, number, instances, names, size.addresses)
        regions.append(_with_hosts(region, interfaces) if name == HOME else interfaces)
    return Content(group_matching="name", excluded_group_names=(), regions=tuple(regions))


def without_one_member(content: Content, group: str, which: int) -> Content:
    """Return the world in which one interface of the home region has left a group.

    `which` of those that carry the group it is, counted from 0 and again from the first.
    """
    regions = []
    for region in content.regions:
        if region.name == HOME:
            interfaces = list(region.interfaces)
            places = [n for n, entry in enumerate(interfaces) if group in entry.groups]
            place = places[which % len(places)]
            left = tuple(kept for kept in interfaces[place].groups if kept != group)
            interfaces[place] = _replace(interfaces[place], groups=left)
            region = _replace(region, interfaces=tuple(interfaces))  # noqa: PLW2901 - the one that changes
        regions.append(region)
    return _replace(content, regions=tuple(regions))


def group_id(region: str, number: int) -> str:
    """Return the id of a region's group by its number among the region's names."""
    return f"sg-{tuple(SHARES).index(region) + 1:x}{number:016x}"


def _region(number: int, name: str, groups: int, random: Random) -> Region:
    vpc = Vpc(id=f"vpc-{number + 1:017x}", account=ACCOUNT, cidrs=(f"10.{10 + number}.0.0/16",))
    return Region(
        name=name,
        vpcs=(vpc,),
        groups=tuple(
            SecurityGroup(
                id=group_id(name, group),
                name=f"{group:04}-app",
                vpc=vpc.id,
                account=ACCOUNT,
                ingress=_ordinary_rules(name, groups, random),
            )
            for group in range(groups)
        ),
    )


def _ordinary_rules(region: str, groups: int, random: Random) -> tuple[Ingress, ...]:
    """Two to eight ports, each open to another group or to a network."""
    rules = []
    for port in sorted(random.sample(_PORTS, random.randint(2, 8))):
        if random.random() < 0.6:
            reference = GroupReference(id=group_id(region, random.randrange(groups)))
            rules.append(Ingress(service=_tcp(port), groups=(reference,)))
        else:
            cidr = f"10.{random.randrange(10, 16)}.{random.randrange(256)}.0/24"
            rules.append(Ingress(service=_tcp(port), cidrs=(cidr,)))
    return tuple(rules)


def _interfaces(region: Region, number: int, instances: int, names: int, addresses: int) -> Region:
    common = min(_COMMON_GROUPS, names)
    first = int(IPv4Address(f"10.{10 + number}.0.4"))
    ids = [group.id for group in region.groups]
    interfaces = []
    for instance in range(instances):
        carried = {ids[(instance * _COMMON_EACH + k) % common] for k in range(_COMMON_EACH)}
        others = len(ids) - common
        if others:
            carried.add(ids[common + instance % others])
        own = range(first + instance * addresses, first + (instance + 1) * addresses)
        interfaces.append(
            Interface(
                id=f"eni-{number + 1:x}{instance:016x}",
                vpc=region.vpcs[0].id,
                instance=f"i-{number + 1:x}{instance:016x}",
                device=0,
                addresses=tuple(sorted(str(IPv4Address(address)) for address in own)),
                groups=tuple(sorted(carried)),
            )
        )
    return _replace(region, interfaces=tuple(interfaces))


def _with_hosts(region: Region, filled: Region) -> Region:
    """Add the VPC of the two hosts, with the groups that they carry."""
    names = [group.id for group in region.groups][:_COMMON_GROUPS]
    vpc = Vpc(id=_HOME_VPC, account=ACCOUNT, cidrs=("10.250.0.0/16",))
    groups, rules = [], 0
    for number, count in enumerate(_HOST_RULES):
        referenced = [names[(rules + k) % len(names)] for k in range(count)]
        groups.append(_host_group(number, range(1024 + rules, 1024 + rules + count), referenced))
        rules += count
    *busy, quiet = groups
    hosts = (
        _host(QUIET_HOST, "10.250.0.4", [quiet.id]),
        _host(BUSY_HOST, "10.250.0.5", [group.id for group in busy]),
    )
    return _replace(
        filled,
        vpcs=tuple(sorted((*filled.vpcs, vpc), key=lambda entry: entry.id)),
        groups=tuple(sorted((*filled.groups, *groups), key=lambda entry: entry.id)),
        interfaces=tuple(sorted((*filled.interfaces, *hosts), key=lambda entry: entry.id)),
    )


def _host_group(number: int, ports: Sequence[int], referenced: Sequence[str]) -> SecurityGroup:
    return SecurityGroup(
        id=f"sg-0{number:016x}",
        name=f"host-{number}",
        vpc=_HOME_VPC,
        account=ACCOUNT,
        ingress=tuple(
            Ingress(service=_tcp(port), groups=(GroupReference(id=group),))
            for port, group in zip(ports, referenced, strict=True)
        ),
    )


def _host(instance: str, address: str, groups: list[str]) -> Interface:
    return Interface(
        id=f"eni-{instance.removeprefix('i-')}",
        vpc=_HOME_VPC,
        instance=instance,
        device=0,
        addresses=(address,),
        groups=tuple(groups),
    )


def _tcp(port: int) -> Ports:
    return Ports(protocol="tcp", first=port, last=port)
