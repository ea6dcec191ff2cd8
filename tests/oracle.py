"""What security group rules mean for one packet: a second reading, by plain loops.

It shares no thought with `reyes.policy` and `reyes.netfilter`: it takes the document as it
stands, forms no sets and no chains, and answers for the first packet of a flow. Where both
readings agree on every packet, a mistake would have to be made twice.

Three decisions are no reading but taken over (docs/ruleset-format.md): a rule for protocol 0 or
for ICMP type 255 matches nothing, as iptables has no other word for them than the one for all, and
one for an extension header nothing of IPv6.
"""

from ipaddress import ip_network
from typing import Literal

from reyes.host import Host, InterfaceScope, IpsecScope, VpcScope
from reyes.net import Address, Everything, Icmp, Ports, Protocol, Service
from reyes.netfilter.evaluate import Packet
from reyes.ruleset import Content, GroupReference, Ingress, Interface, Region, SecurityGroup

Verdict = Literal["not judged", "accepted", "denied"]

INNOCUOUS = {4: {3, 11, 12}, 6: {1, 2, 3, 4, 133, 134, 135, 136}}


def verdict(content: Content, host: Host, packet: Packet) -> Verdict:
    """Judge a new packet that reaches a host of the ruleset."""
    region = next(
        region
        for region in content.regions
        if host.region in (None, region.name)
        and any(interface.instance == host.instance_id for interface in region.interfaces)
    )
    interfaces = [i for i in region.interfaces if i.instance == host.instance_id]
    if not is_judged(region, interfaces, host, packet):
        return "not judged"
    if is_icmp(packet) and packet.icmp and packet.icmp[0] in INNOCUOUS[packet.source.version]:
        return "accepted"
    addressed = addressed_interface(interfaces, packet.destination)
    for group in region.groups:
        if group.id in addressed.groups and group.name not in content.excluded_group_names:
            for rule in group.ingress:
                if is_of(rule.service, packet) and is_source(content, region, rule, packet.source):
                    return "accepted"
    return "denied"


def is_judged(region: Region, interfaces: list[Interface], host: Host, packet: Packet) -> bool:
    if packet.interface == "lo":
        return False
    for safe in host.failsafe:
        if is_in(packet.source, str(safe.network)) and is_of(safe.service, packet):
            return False
    match host.scope:
        case VpcScope(filtered):
            own = [i.vpc for i in interfaces]
            near = [cidr for vpc in region.vpcs if vpc.id in own for cidr in vpc.cidrs]
            near.append("fe80::/10")  # on its own link, as DHCPv6 is
            return is_in(packet.source, *map(str, filtered)) and not is_in(packet.source, *near)
        case IpsecScope():
            return packet.from_ipsec
        case InterfaceScope(names):
            return any(
                packet.interface == name
                or (name.endswith("+") and packet.interface.startswith(name[:-1]))
                for name in names
            )


def addressed_interface(interfaces: list[Interface], destination: Address) -> Interface:
    """Find the interface that holds an address, else the primary one."""
    by_device = sorted(interfaces, key=lambda interface: interface.device or 0)
    for interface in by_device:
        if is_in(destination, *interface.addresses):
            return interface
    return by_device[0]


def is_of(service: Service, packet: Packet) -> bool:
    match service:
        case Everything():
            return True
        case Protocol(number):
            lost = {0} if packet.source.version == 4 else {0, 43, 44, 51, 60}
            return number not in lost and packet.protocol == number
        case Ports(protocol, first, last):
            return (
                packet.protocol == {"tcp": 6, "udp": 17}[protocol]
                and packet.port is not None
                and first <= packet.port <= last
            )
        case Icmp(protocol, kind, code):
            if not is_icmp(packet) or packet.icmp is None:
                return False
            if packet.source.version != {"icmp": 4, "icmpv6": 6}[protocol]:
                return False
            if kind == -1:
                return code == -1
            if kind == 255 and protocol == "icmp":
                return False
            return packet.icmp[0] == kind and code in (-1, packet.icmp[1])


def is_icmp(packet: Packet) -> bool:
    return packet.protocol == {4: 1, 6: 58}[packet.source.version]


def is_source(content: Content, region: Region, rule: Ingress, source: Address) -> bool:
    if is_in(source, *rule.cidrs):
        return True
    for known in region.prefix_lists:
        if known.id in rule.prefix_lists and is_in(source, *known.cidrs):
            return True
    return any(is_member(content, region, reference, source) for reference in rule.groups)


def is_member(
    content: Content, region: Region, reference: GroupReference, source: Address
) -> bool:
    if reference.peering is not None:
        return False
    for referenced in region.groups:
        if referenced.id == reference.id:
            for other_region in content.regions:
                for group in other_region.groups:
                    same = other_region.name == region.name and group.id == referenced.id
                    if (
                        (same or is_alike(content.group_matching, referenced, group))
                        and group.name not in content.excluded_group_names
                        and referenced.name not in content.excluded_group_names
                        and carries(other_region, group, source)
                    ):
                        return True
    return False


def is_alike(matching: str, one: SecurityGroup, other: SecurityGroup) -> bool:
    if matching == "name":
        return one.name == other.name != "default"
    if matching.startswith("tag:"):
        return bool(one.tag) and one.tag == other.tag
    return False


def carries(region: Region, group: SecurityGroup, source: Address) -> bool:
    return any(
        group.id in interface.groups and is_in(source, *interface.addresses)
        for interface in region.interfaces
    )


def is_in(address: Address, *networks: str) -> bool:
    return any(address in ip_network(network) for network in networks)
