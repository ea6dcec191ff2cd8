"""What EC2 said, and what it means: replies of the API in, the content of a ruleset out.

Rules it keeps:

* Groups sit on interfaces: every private address and delegated prefix of an interface is a member
  of each group the interface carries. Public addresses are not, and neither are interfaces of
  terminated instances, whose addresses may belong to somebody else by now.
* Nothing is looked at but the fields that `replies` names: others are in no reply.
* What EC2 could only say by mistake (a port range from 7 to 3, no address where one belongs)
  allows nobody anything.
* The order of replies, sources and rules leaves no trace: the same world gives the same content.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from sys import intern
from typing import TypeVar

import msgspec
from msgspec import Struct, field

from reyes import replies
from reyes.errors import SourceError
from reyes.net import (
    LAST_PORT,
    PROTOCOL_NUMBERS,
    Everything,
    Icmp,
    Ports,
    Protocol,
    Service,
    canonical,
    span,
)
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

Identified = TypeVar("Identified", Vpc, SecurityGroup, Interface, PrefixList)

_NAMES = {str(number): name for name, number in PROTOCOL_NUMBERS.items()}
"""EC2 may write a protocol that has ports or types by its number as well."""

_LAST_OCTET = 255
_OCTET = re.compile("0|[1-9][0-9]{0,2}")


class Inventory(Struct, frozen=True, kw_only=True):
    """What calls returned of one source: all of it, or some pages.

    `prefix_lists` holds the entries of the lists that could be read, by identifier.
    """

    region: str
    vpcs: Sequence[replies.Vpc] = ()
    groups: Sequence[replies.SecurityGroup] = ()
    instances: Sequence[replies.Instance] = ()
    interfaces: Sequence[replies.NetworkInterface] = ()
    prefix_lists: Mapping[str, Sequence[replies.PrefixListEntry]] = field(default_factory=dict)


class View(Struct, frozen=True, kw_only=True):
    """What an inventory means by itself; `ended` are the instances that are terminated."""

    region: str
    vpcs: tuple[Vpc, ...]
    groups: tuple[SecurityGroup, ...]
    ended: frozenset[str]
    interfaces: tuple[Interface, ...]
    prefix_lists: tuple[PrefixList, ...]


def view(inventory: Inventory, matching: str, excluded_group_names: Collection[str]) -> View:
    """Say what an inventory means; `matching` is the configured `group_matching`.

    Raises:
        SourceError: a reply lacks what EC2 always says.
    """
    try:
        return View(
            region=inventory.region,
            vpcs=tuple(map(_vpc, inventory.vpcs)),
            groups=tuple(
                _group(group, matching, excluded_group_names)
                for group in inventory.groups
                if group.get("VpcId")
            ),
            ended=frozenset(
                instance["InstanceId"]
                for instance in inventory.instances
                if instance["State"]["Name"] == "terminated"
            ),
            interfaces=tuple(map(_interface, inventory.interfaces)),
            prefix_lists=tuple(
                PrefixList(id=identifier, cidrs=_networks(entry.get("Cidr") for entry in entries))
                for identifier, entries in inventory.prefix_lists.items()
            ),
        )
    except KeyError as error:
        raise SourceError(f"a reply of EC2 lacks {error}", "the next run asks again") from error


def merge(views: Iterable[View], matching: str, excluded_group_names: Collection[str]) -> Content:
    """Say what all views of all sources together mean."""
    by_region: dict[str, list[View]] = {}
    for seen in views:
        by_region.setdefault(seen.region, []).append(seen)
    return Content(
        group_matching=matching,
        excluded_group_names=tuple(sorted(set(excluded_group_names))),
        regions=tuple(_region(name, by_region[name]) for name in sorted(by_region)),
    )


def named_prefix_lists(groups: Iterable[SecurityGroup]) -> frozenset[str]:
    """Return the prefix lists that rules of groups name."""
    return frozenset(
        entry for group in groups for rule in group.ingress for entry in rule.prefix_lists
    )


def _region(name: str, views: Sequence[View]) -> Region:
    ended = frozenset[str]().union(*(seen.ended for seen in views))
    groups = _merged(group for seen in views for group in seen.groups)
    named = named_prefix_lists(groups)
    return Region(
        name=name,
        vpcs=_merged(vpc for seen in views for vpc in seen.vpcs),
        groups=groups,
        interfaces=_merged(
            interface
            for seen in views
            for interface in seen.interfaces
            if interface.instance not in ended
        ),
        prefix_lists=_merged(
            entry for seen in views for entry in seen.prefix_lists if entry.id in named
        ),
    )


def _merged(seen: Iterable[Identified]) -> tuple[Identified, ...]:
    """Keep one value for each identifier, sorted: of two accounts' views the one that says more.

    Only a group's owner sees its tags, and two sources are read at different moments: a view with
    a tag says more than one with another rule.
    """
    merged: dict[str, Identified] = {}
    for value in seen:
        other = merged.setdefault(value.id, value)
        if other != value:
            merged[value.id] = max(other, value, key=_fullness)
    return tuple(merged[identifier] for identifier in sorted(merged))


def _fullness(value: Identified) -> tuple[bool, int, bytes]:
    text = msgspec.json.encode(value)
    return getattr(value, "tag", None) is not None, len(text), text


def _vpc(vpc: replies.Vpc) -> Vpc:
    cidrs = [
        association.get("CidrBlock")
        for association in vpc.get("CidrBlockAssociationSet") or ()
        if association["CidrBlockState"]["State"] == "associated"
    ]
    cidrs += [
        association.get("Ipv6CidrBlock")
        for association in vpc.get("Ipv6CidrBlockAssociationSet") or ()
        if association["Ipv6CidrBlockState"]["State"] == "associated"
    ]
    return Vpc(id=vpc["VpcId"], account=vpc["OwnerId"], cidrs=_networks(cidrs))


def _interface(interface: replies.NetworkInterface) -> Interface:
    """Describe an interface; what many of them name is held once."""
    attachment = interface.get("Attachment") or {}
    instance = attachment.get("InstanceId")
    groups = {intern(group["GroupId"]) for group in interface.get("Groups") or ()}
    return Interface(
        id=interface["NetworkInterfaceId"],
        vpc=intern(interface["VpcId"]),
        instance=instance,
        device=attachment.get("DeviceIndex") if instance else None,
        addresses=_networks(_addresses(interface)),
        groups=tuple(sorted(groups)),
    )


def _addresses(interface: replies.NetworkInterface) -> Iterator[str | None]:
    yield interface.get("PrivateIpAddress")
    for private in interface.get("PrivateIpAddresses") or ():
        yield private.get("PrivateIpAddress")
    for address in interface.get("Ipv6Addresses") or ():
        yield address.get("Ipv6Address")
    for prefix in interface.get("Ipv4Prefixes") or ():
        yield prefix.get("Ipv4Prefix")
    for ipv6_prefix in interface.get("Ipv6Prefixes") or ():
        yield ipv6_prefix.get("Ipv6Prefix")


def _group(
    group: replies.SecurityGroup, matching: str, excluded: Collection[str]
) -> SecurityGroup:
    """Describe a group; an excluded one keeps its name, so that followers can say what it was."""
    name = group["GroupName"]
    permissions = () if name in excluded else group.get("IpPermissions") or ()
    return SecurityGroup(
        id=group["GroupId"],
        name=name,
        vpc=group["VpcId"],
        account=group["OwnerId"],
        tag=_tag(group.get("Tags") or (), matching),
        ingress=_ingress(permissions, group["OwnerId"]),
    )


def _tag(tags: Sequence[replies.Tag], matching: str) -> str | None:
    """Return the matching tag's value; an empty one makes nobody equal to anybody."""
    key = matching.removeprefix("tag:") if matching.startswith("tag:") else None
    return next((tag["Value"] for tag in tags if tag["Key"] == key), None) or None


def _ingress(permissions: Iterable[replies.IpPermission], owner: str) -> tuple[Ingress, ...]:
    """Translate permissions; those of one service become one rule, as EC2 itself does it."""
    by_service: dict[Service, list[replies.IpPermission]] = {}
    for permission in permissions:
        service = _service(permission)
        if service is not None:
            by_service.setdefault(service, []).append(permission)
    rules = (
        Ingress(
            service=service,
            cidrs=_networks(_cidrs(same)),
            prefix_lists=tuple(sorted(set(_prefix_list_ids(same)))),
            groups=_references(same, owner),
        )
        for service, same in by_service.items()
    )
    open_rules = (rule for rule in rules if rule.cidrs or rule.prefix_lists or rule.groups)
    return tuple(sorted(open_rules, key=_rule_order))


def _rule_order(rule: Ingress) -> tuple[str, Service]:
    """Sort by kind first: only services of one kind compare."""
    return type(rule.service).__name__, rule.service


def _service(permission: replies.IpPermission) -> Service | None:
    """Return what a permission opens, None if no packet can be that."""
    protocol = permission["IpProtocol"]
    first, last = (
        -1 if bound is None else bound
        for bound in (permission.get("FromPort"), permission.get("ToPort"))
    )
    match _NAMES.get(protocol, protocol):
        case "-1":
            return Everything()
        case "tcp" | "udp" as name:
            if first == last == -1:
                return Ports(protocol=name, first=0, last=LAST_PORT)
            possible = 0 <= first <= last <= LAST_PORT
            return Ports(protocol=name, first=first, last=last) if possible else None
        case "icmp" | "icmpv6" as name:
            possible = -1 <= first <= _LAST_OCTET and -1 <= last <= _LAST_OCTET
            return Icmp(protocol=name, type=first, code=last) if possible else None
        case number:
            possible = bool(_OCTET.fullmatch(number)) and int(number) <= _LAST_OCTET
            return Protocol(number=int(number)) if possible else None


def _cidrs(permissions: Iterable[replies.IpPermission]) -> Iterator[str | None]:
    for permission in permissions:
        for ipv4 in permission.get("IpRanges") or ():
            yield ipv4.get("CidrIp")
        for ipv6 in permission.get("Ipv6Ranges") or ():
            yield ipv6.get("CidrIpv6")


def _prefix_list_ids(permissions: Iterable[replies.IpPermission]) -> Iterator[str]:
    for permission in permissions:
        for prefix_list in permission.get("PrefixListIds") or ():
            yield prefix_list["PrefixListId"]


def _references(
    permissions: Iterable[replies.IpPermission], owner: str
) -> tuple[GroupReference, ...]:
    references = {
        _reference(pair, owner)
        for permission in permissions
        for pair in permission.get("UserIdGroupPairs") or ()
        if pair.get("GroupId")
    }
    return tuple(sorted(references, key=msgspec.json.encode))


def _reference(pair: replies.UserIdGroupPair, owner: str) -> GroupReference:
    """Describe a reference; a deleted group has no account, and a group of AWS a word for one."""
    account, peering = pair.get("UserId") or "", pair.get("PeeringStatus")
    return GroupReference(
        id=pair["GroupId"],
        account=account if account.isdecimal() and account != owner else None,
        peering=None if peering == "active" else peering,
    )


def _networks(networks: Iterable[str | None]) -> tuple[str, ...]:
    """Write networks canonically, sorted and without duplicates; what is none is left out."""
    return tuple(sorted({written for written in map(_network, set(networks)) if written}))


def _network(network: str | None) -> str | None:
    """Write one network canonically, None if it is none.

    Nearly all are canonical, which is told ten times quicker than a network is read.
    """
    if not network or "%" in network:
        return None
    try:
        span(network)
    except ValueError:
        return _rewritten(network)
    return network


def _rewritten(network: str) -> str | None:
    """Write a network without host bits: EC2 clears them, too."""
    try:
        return canonical(ip_network(network, strict=False))
    except ValueError:
        return None
