"""What a ruleset means for one host: VerifiedRuleset x Host -> HostPolicy.

Rules it keeps:

* A reference to a group stands for the addresses of every interface that carries the group, and
  of the groups that count as the same one in other VPCs (`group_matching`).
* Who cannot be told (an unknown, stale or excluded group, an unknown prefix list) is nobody, and
  a value with a reason: `Omitted`.
* Addresses are checked where they are used, and one that is none refuses the ruleset (`members`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from reyes.errors import HostUnknownError
from reyes.host import Host, filtered_networks
from reyes.matching import GroupKey, GroupMatching
from reyes.members import JudgedSenders, check_addresses, members_of, network_of
from reyes.net import (
    Family,
    Icmp,
    Network,
    Ports,
    Protocol,
    Service,
    only_family,
    service_families,
    service_text,
)
from reyes.ruleset import Content, Ingress, Interface, PrefixList, Region, SecurityGroup, Vpc
from reyes.trust import VerifiedRuleset


class Peer(Struct, frozen=True, kw_only=True):
    """Whom a rule is open to: canonical addresses of both families, sorted as text.

    `name` is the rule's own word for them (a group's or prefix list's id, or `cidrs`), `label` a
    short word for people. `groups` are those whose members the addresses are.
    """

    name: str
    label: str
    addresses: tuple[str, ...]
    groups: tuple[SecurityGroup, ...] = ()


class Allow(Struct, frozen=True, kw_only=True):
    """A service that a group's rule (counted from 1) opens to a peer."""

    group: SecurityGroup
    rule: int
    service: Service
    peer: Peer


class Omitted(Struct, frozen=True, kw_only=True):
    """A part of a group's rule that allows nothing here, and why."""

    group: str
    rule: int
    what: str
    reason: str

    def __str__(self) -> str:
        """Write it for people; rule 0 is the group as a whole."""
        if self.rule == 0:
            return f"{self.group}: {self.reason}"
        return f"{self.group} rule {self.rule}: {self.what}: {self.reason}"


class InterfacePolicy(Struct, frozen=True, kw_only=True):
    """What one interface of the host lets in."""

    id: str
    addresses: tuple[Network, ...]
    groups: tuple[str, ...]
    allows: tuple[Allow, ...]


class HostPolicy(Struct, frozen=True, kw_only=True):
    """All that the ruleset says about one host; the first interface is the primary one."""

    host: Host
    vpcs: tuple[Vpc, ...]
    interfaces: tuple[InterfacePolicy, ...]
    omitted: tuple[Omitted, ...]


def resolve(verified: VerifiedRuleset, host: Host) -> HostPolicy:
    """Work out what a host lets in.

    Raises:
        HostUnknownError: the ruleset does not hold the instance or one of its VPCs.
        SignatureError: an address in the ruleset is none.
    """
    return resolve_content(verified.ruleset.content, host)


def resolve_content(content: Content, host: Host) -> HostPolicy:
    """Work out what a host would let in, for explanations: nothing may be put in force by it.

    Raises:
        HostUnknownError, SignatureError: as `resolve`.
    """
    region, interfaces = _own_interfaces(content, host)
    vpcs = tuple(_own_vpc(region, vpc) for vpc in sorted({i.vpc for i in interfaces}))
    own_networks = tuple(network_of(cidr) for vpc in vpcs for cidr in vpc.cidrs)
    judged = JudgedSenders(own_networks, filtered_networks(host.scope))
    resolver = _Resolver(content, region, interfaces, judged)
    return HostPolicy(
        host=host,
        vpcs=vpcs,
        interfaces=tuple(resolver.interface_policy(interface) for interface in interfaces),
        omitted=tuple(dict.fromkeys(resolver.omitted)),
    )


def check_known(content: Content, host: Host) -> None:
    """Refuse a ruleset that does not know a host, or not the networks of its VPCs.

    Raises:
        HostUnknownError: so it is.
    """
    region, interfaces = _own_interfaces(content, host)
    for interface in interfaces:
        _own_vpc(region, interface.vpc)


def _own_interfaces(content: Content, host: Host) -> tuple[Region, list[Interface]]:
    for region in content.regions:
        if host.region in (None, region.name):
            found = [i for i in region.interfaces if i.instance == host.instance_id]
            if found:
                _check_primary(found, host)
                return region, sorted(found, key=_device_order)
    for region in content.regions:
        if any(i.instance == host.instance_id for i in region.interfaces):
            raise HostUnknownError(
                f"the ruleset holds instance {host.instance_id} in region {region.name},"
                f" not in {host.region}",
                "mend follower.region, or leave it to the metadata service",
            )
    where = f" in region {host.region}" if host.region else ""
    raise HostUnknownError(
        f"the ruleset does not know instance {host.instance_id}{where}",
        "a new instance appears with the leader's next pass; "
        "otherwise see whether leader.sources covers its region and VPC",
    )


def _check_primary(interfaces: Sequence[Interface], host: Host) -> None:
    """Refuse to take another interface for the primary one, whose VPC would be judged then."""
    if all(interface.device for interface in interfaces):
        known = ", ".join(f"{interface.id} in {interface.vpc}" for interface in interfaces)
        raise HostUnknownError(
            f"the ruleset does not hold the primary interface of instance {host.instance_id},"
            f" only {known}",
            "local traffic of its VPC would be judged: see whether leader.sources covers that VPC",
        )


def _device_order(interface: Interface) -> tuple[int, str]:
    return (interface.device if interface.device is not None else 1 << 16, interface.id)


def _own_vpc(region: Region, vpc_id: str) -> Vpc:
    for vpc in region.vpcs:
        if vpc.id == vpc_id and vpc.cidrs:
            return vpc
    raise HostUnknownError(
        f"the ruleset does not hold the CIDRs of this host's own {vpc_id}",
        "without them local traffic would be judged: see whether leader.sources covers that VPC",
    )


class _Resolver:
    """The look-ups of one resolution, each made once."""

    def __init__(
        self,
        content: Content,
        region: Region,
        interfaces: Sequence[Interface],
        judged: JudgedSenders,
    ) -> None:
        self.omitted: list[Omitted] = []
        self._region = region
        self._groups = {group.id: group for group in region.groups}
        self._prefix_lists = {entry.id: entry for entry in region.prefix_lists}
        self._matching = GroupMatching(content)
        self._meant = self._all_meant(interfaces)
        self._members = members_of(content, self._meant, judged)
        self._peers: dict[str, Peer] = {}
        self._allows_by_groups: dict[tuple[str, ...], tuple[Allow, ...]] = {}

    def interface_policy(self, interface: Interface) -> InterfacePolicy:
        """Work out what an interface lets in: what all of the same groups do."""
        groups = interface.groups
        if groups not in self._allows_by_groups:
            self._allows_by_groups[groups] = tuple(self._allows_of_groups(groups))
        return InterfacePolicy(
            id=interface.id,
            addresses=tuple(network_of(address) for address in interface.addresses),
            groups=groups,
            allows=self._allows_by_groups[groups],
        )

    def _allows_of_groups(self, groups: Iterable[str]) -> Iterator[Allow]:
        for group_id in groups:
            group = self._groups.get(group_id)
            if group is None:
                self._omit(group_id, 0, "the group", "it is not in the ruleset")
            elif self._matching.is_excluded(group):
                self._omit(group_id, 0, "the group", f"{group.name!r} is excluded")
            else:
                for number, ingress in enumerate(group.ingress, start=1):
                    yield from self._allows_of_rule(group, number, ingress)

    def _allows_of_rule(
        self, group: SecurityGroup, number: int, ingress: Ingress
    ) -> Iterator[Allow]:
        service = ingress.service
        reason = why_inexpressible(service)
        if reason:
            self._omit(group.id, number, service_text(service), reason)
            return
        only_ipv4 = isinstance(service, Protocol) and Family.V6 not in service_families(service)
        for peer in self._peers_of(group, number, ingress):
            if only_ipv4 and only_family(peer.addresses, Family.V6):
                what = f"{service_text(service)} from {peer.name} over IPv6"
                self._omit(group.id, number, what, "iptables tells none by an extension header")
            yield Allow(group=group, rule=number, service=service, peer=peer)

    def _peers_of(self, group: SecurityGroup, number: int, ingress: Ingress) -> Iterator[Peer]:
        if ingress.cidrs:
            check_addresses(ingress.cidrs)
            yield Peer(name="cidrs", label="cidrs", addresses=ingress.cidrs)
        for prefix_list_id in ingress.prefix_lists:
            prefix_list = self._prefix_lists.get(prefix_list_id)
            if prefix_list is None:
                self._omit(group.id, number, prefix_list_id, "its entries could not be read")
            else:
                yield self._prefix_list_peer(prefix_list)
        for reference in ingress.groups:
            reason = self._matching.why_nobody(self._region.name, reference)
            if reason:
                self._omit(group.id, number, reference.id, reason)
            else:
                yield self._group_peer(reference.id)

    def _prefix_list_peer(self, prefix_list: PrefixList) -> Peer:
        if prefix_list.id not in self._peers:
            check_addresses(prefix_list.cidrs)
            self._peers[prefix_list.id] = Peer(
                name=prefix_list.id, label=prefix_list.id, addresses=prefix_list.cidrs
            )
        return self._peers[prefix_list.id]

    def _group_peer(self, group_id: str) -> Peer:
        if group_id not in self._peers:
            self._peers[group_id] = Peer(
                name=group_id,
                label=self._groups[group_id].name,
                addresses=self._members[group_id],
                groups=tuple(self._meant[group_id].values()),
            )
        return self._peers[group_id]

    def _all_meant(
        self, interfaces: Iterable[Interface]
    ) -> dict[str, Mapping[GroupKey, SecurityGroup]]:
        """Return the groups that each reference in rules of these interfaces' groups means."""
        named = {
            reference.id
            for group_id in {group_id for interface in interfaces for group_id in interface.groups}
            if group_id in self._groups
            for ingress in self._groups[group_id].ingress
            for reference in ingress.groups
        }
        return {
            group_id: self._matching.alike(self._region.name, self._groups[group_id])
            for group_id in named
            if group_id in self._groups
        }

    def _omit(self, group: str, rule: int, what: str, reason: str) -> None:
        self.omitted.append(Omitted(group=group, rule=rule, what=what, reason=reason))


def why_inexpressible(service: Service) -> str | None:
    """Say why no packet can be told to be of this service, if so."""
    match service:
        case Icmp(type=-1, code=code) if code != -1:
            return "ICMP with a code but no type matches nothing (EC2 refuses to store it)"
        case Icmp(protocol="icmp", type=255):
            return "ICMP type 255 means every type to iptables"
        case Ports(first=first, last=last) if first > last:
            return "its ports end before they begin (EC2 refuses to store it)"
        case Protocol(number=0):
            return "protocol 0 means every protocol to iptables"
        case _:
            return None
