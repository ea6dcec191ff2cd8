"""What EC2 said, and what it means: replies of the API in, the content of a ruleset out.

Rules it keeps:

* Groups sit on interfaces: every private address and delegated prefix of an interface is a member
  of each group the interface carries. Public addresses are not, and neither are interfaces of
  terminated instances, whose addresses may belong to somebody else by now.
* What EC2 could only say by mistake (a port range from 7 to 3, no address where one belongs)
  allows nobody anything.
* The order of replies, sources and rules leaves no trace: the same world gives the same content.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, TypeVar

import msgspec

from reyes.errors import SourceError
from reyes.net import (
    Everything,
    Icmp,
    Ports,
    Protocol,
    Service,
    canonical,
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

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from mypy_boto3_ec2.type_defs import (
        InstanceTypeDef,
        IpPermissionOutputTypeDef,
        NetworkInterfaceTypeDef,
        PrefixListEntryTypeDef,
        SecurityGroupTypeDef,
        TagTypeDef,
        UserIdGroupPairTypeDef,
        VpcTypeDef,
    )

Identified = TypeVar("Identified", Vpc, SecurityGroup, Interface, PrefixList)

_NAMES = {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6"}
"""The protocols that have ports or types; EC2 may write either form."""

_LAST_PORT = 65535
_LAST_OCTET = 255
_OCTET = re.compile("[0-9]{1,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What one source's calls returned, in boto3's form.

    `prefix_lists` holds the entries of the lists that could be read, by identifier.
    """

    region: str
    vpcs: Sequence[VpcTypeDef] = ()
    groups: Sequence[SecurityGroupTypeDef] = ()
    instances: Sequence[InstanceTypeDef] = ()
    interfaces: Sequence[NetworkInterfaceTypeDef] = ()
    prefix_lists: Mapping[str, Sequence[PrefixListEntryTypeDef]]


def build(
    inventories: Iterable[Inventory], matching: str, excluded_group_names: Collection[str]
) -> Content:
    """Say what the sources together mean; `matching` is the configured `group_matching`.

    Raises:
        SourceError: a reply lacks what EC2 always says.
    """
    by_region: dict[str, list[Inventory]] = {}
    for inventory in inventories:
        by_region.setdefault(inventory.region, []).append(inventory)
    excluded = frozenset(excluded_group_names)
    with _complete_replies():
        regions = tuple(
            _region(name, by_region[name], matching, excluded) for name in sorted(by_region)
        )
    return Content(
        group_matching=matching, excluded_group_names=tuple(sorted(excluded)), regions=regions
    )


def named_prefix_lists(
    groups: Iterable[SecurityGroupTypeDef], excluded_group_names: Collection[str]
) -> list[str]:
    """Return the prefix lists that the rules of groups which are not excluded name.

    Raises:
        SourceError: a reply lacks what EC2 always says.
    """
    permissions = (
        permission
        for group in groups
        if group["GroupName"] not in excluded_group_names
        for permission in group.get("IpPermissions") or ()
    )
    with _complete_replies():
        return sorted(set(_prefix_list_ids(permissions)))


@contextmanager
def _complete_replies() -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise SourceError(f"a reply of EC2 lacks {error}", "the next run asks again") from error


def _region(
    name: str, inventories: Sequence[Inventory], matching: str, excluded: frozenset[str]
) -> Region:
    terminated = {
        instance["InstanceId"]
        for inventory in inventories
        for instance in inventory.instances
        if instance["State"]["Name"] == "terminated"
    }
    groups = _merged(
        _group(group, matching, excluded)
        for inventory in inventories
        for group in inventory.groups
        if group.get("VpcId")
    )
    named = {entry for group in groups for rule in group.ingress for entry in rule.prefix_lists}
    return Region(
        name=name,
        vpcs=_merged(_vpc(vpc) for inventory in inventories for vpc in inventory.vpcs),
        groups=groups,
        interfaces=_merged(
            interface
            for inventory in inventories
            for interface in map(_interface, inventory.interfaces)
            if interface.instance not in terminated
        ),
        prefix_lists=_merged(
            PrefixList(id=identifier, cidrs=_texts(entry.get("Cidr") for entry in entries))
            for inventory in inventories
            for identifier, entries in inventory.prefix_lists.items()
            if identifier in named
        ),
    )


def _merged(seen: Iterable[Identified]) -> tuple[Identified, ...]:
    """Keep one value for each identifier, sorted: of two accounts' views the one that says more.

    Only a group's owner sees its tags, and two sources are read at different moments.
    """
    merged: dict[str, Identified] = {}
    for value in seen:
        other = merged.setdefault(value.id, value)
        if other != value:
            merged[value.id] = max(other, value, key=_fullness)
    return tuple(merged[identifier] for identifier in sorted(merged))


def _fullness(value: Identified) -> tuple[int, bytes]:
    text = msgspec.json.encode(value)
    return len(text), text


def _vpc(vpc: VpcTypeDef) -> Vpc:
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
    return Vpc(id=vpc["VpcId"], account=vpc["OwnerId"], cidrs=_texts(cidrs))


def _interface(interface: NetworkInterfaceTypeDef) -> Interface:
    attachment = interface.get("Attachment") or {}
    instance = attachment.get("InstanceId")
    return Interface(
        id=interface["NetworkInterfaceId"],
        vpc=interface["VpcId"],
        instance=instance,
        device=attachment.get("DeviceIndex") if instance else None,
        addresses=_texts(_addresses(interface)),
        groups=tuple(sorted({group["GroupId"] for group in interface.get("Groups") or ()})),
    )


def _addresses(interface: NetworkInterfaceTypeDef) -> Iterator[str | None]:
    yield interface.get("PrivateIpAddress")
    for private in interface.get("PrivateIpAddresses") or ():
        yield private.get("PrivateIpAddress")
    for address in interface.get("Ipv6Addresses") or ():
        yield address.get("Ipv6Address")
    for prefix in interface.get("Ipv4Prefixes") or ():
        yield prefix.get("Ipv4Prefix")
    for ipv6_prefix in interface.get("Ipv6Prefixes") or ():
        yield ipv6_prefix.get("Ipv6Prefix")


def _group(group: SecurityGroupTypeDef, matching: str, excluded: frozenset[str]) -> SecurityGroup:
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


def _tag(tags: Sequence[TagTypeDef], matching: str) -> str | None:
    """Return the matching tag's value; an empty one makes nobody equal to anybody."""
    key = matching.removeprefix("tag:") if matching.startswith("tag:") else None
    return next((tag["Value"] for tag in tags if tag["Key"] == key), None) or None


def _ingress(permissions: Iterable[IpPermissionOutputTypeDef], owner: str) -> tuple[Ingress, ...]:
    """Translate permissions; those of one service become one rule, as EC2 itself does it."""
    by_service: dict[Service, list[IpPermissionOutputTypeDef]] = {}
    for permission in permissions:
        service = _service(permission)
        if service is not None:
            by_service.setdefault(service, []).append(permission)
    rules = (
        Ingress(
            service=service,
            cidrs=_texts(_cidrs(same)),
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


def _service(permission: IpPermissionOutputTypeDef) -> Service | None:
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
            if first == -1:
                return Ports(protocol=name, first=0, last=_LAST_PORT)
            possible = 0 <= first <= last <= _LAST_PORT
            return Ports(protocol=name, first=first, last=last) if possible else None
        case "icmp" | "icmpv6" as name:
            possible = -1 <= first <= _LAST_OCTET and -1 <= last <= _LAST_OCTET
            return Icmp(protocol=name, type=first, code=last) if possible else None
        case number:
            possible = bool(_OCTET.fullmatch(number)) and int(number) <= _LAST_OCTET
            return Protocol(number=int(number)) if possible else None


def _cidrs(permissions: Iterable[IpPermissionOutputTypeDef]) -> Iterator[str | None]:
    for permission in permissions:
        for ipv4 in permission.get("IpRanges") or ():
            yield ipv4.get("CidrIp")
        for ipv6 in permission.get("Ipv6Ranges") or ():
            yield ipv6.get("CidrIpv6")


def _prefix_list_ids(permissions: Iterable[IpPermissionOutputTypeDef]) -> Iterator[str]:
    for permission in permissions:
        for prefix_list in permission.get("PrefixListIds") or ():
            yield prefix_list["PrefixListId"]


def _references(
    permissions: Iterable[IpPermissionOutputTypeDef], owner: str
) -> tuple[GroupReference, ...]:
    references = {
        _reference(pair, owner)
        for permission in permissions
        for pair in permission.get("UserIdGroupPairs") or ()
        if pair.get("GroupId")
    }
    return tuple(sorted(references, key=msgspec.json.encode))


def _reference(pair: UserIdGroupPairTypeDef, owner: str) -> GroupReference:
    """Describe a reference; a deleted group has no account, and a group of AWS a word for one."""
    account, peering = pair.get("UserId") or "", pair.get("PeeringStatus")
    return GroupReference(
        id=pair["GroupId"],
        account=account if account.isdecimal() and account != owner else None,
        peering=None if peering == "active" else peering,
    )


def _texts(networks: Iterable[str | None]) -> tuple[str, ...]:
    """Write networks canonically, sorted and without duplicates; what is none is left out."""
    return tuple(sorted({text for text in map(_text, set(networks)) if text}))


def _text(network: str | None) -> str | None:
    """Write one network canonically, without host bits: EC2 clears them, too."""
    try:
        if not network or "%" in network:
            return None
        return canonical(ip_network(network, strict=False))
    except ValueError:
        return None
