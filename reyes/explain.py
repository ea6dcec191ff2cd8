"""Why a packet is let in or not, and who may reach an instance.

The verdict is that of `netfilter.evaluate`, which walks the values that are rendered for the
kernel. Here it is only put into words: group, rule, source, member.
"""

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from reyes.host import InterfaceScope, IpsecScope, Scope, VpcScope
from reyes.members import network_of
from reyes.net import Address, canonical, family_of, parse_network, service_text
from reyes.netfilter import names
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.evaluate import Decision, Evaluator, Packet, Walk, is_service
from reyes.netfilter.iptables import SetMatch
from reyes.policy import Allow, HostPolicy, InterfacePolicy, Omitted
from reyes.ruleset import Content, Interface, Region


class Member(Struct, frozen=True, kw_only=True):
    """An interface that carries an address, and one of its groups."""

    address: str
    interface: str
    instance: str | None
    region: str
    vpc: str
    group: str
    group_name: str


class Grant(Struct, frozen=True, kw_only=True):
    """A part of a group's rule that opens a service to somebody.

    `source` is the rule's own word for them; `matched` those networks of a CIDR or prefix list
    rule that hold the address in question, `members` the interfaces, if the source is a group.
    """

    group: str
    group_name: str
    vpc: str
    rule: int
    service: str
    source: str
    source_label: str
    addresses: tuple[str, ...]
    matched: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()
    kernel_rule: str | None = None
    set: str | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    """A verdict, and all that is needed to see why.

    `granted` is what lets the packet in; `near_misses` are the rules for its service that do not,
    `source_is` the groups that the sender is in.
    """

    decision: Decision
    reason: str
    interface: str | None
    granted: Grant | None
    near_misses: tuple[Grant, ...]
    source_is: tuple[Member, ...]
    omitted: tuple[Omitted, ...]


def explain(
    policy: HostPolicy, dataplane: Dataplane, content: Content, packet: Packet
) -> Explanation:
    """Say what becomes of a new packet, and why."""
    walk = Evaluator(dataplane).walk(packet)
    judged = walk.decision != "not judged"
    interface = _addressed(policy, packet.destination) if judged else None
    missed = interface.allows if interface and walk.decision == "denied" else ()
    source_is = tuple(members_at(content, packet.source))
    return Explanation(
        decision=walk.decision,
        reason=_reason(policy, walk),
        interface=interface.id if interface else None,
        granted=_granted(dataplane, walk, packet, source_is),
        near_misses=tuple(_grant(allow) for allow in missed if is_service(allow.service, packet)),
        source_is=source_is,
        omitted=policy.omitted,
    )


def members_at(content: Content, address: Address) -> Iterator[Member]:
    """Find the interfaces that carry an address, once for each of their groups."""
    for region in content.regions:
        group_names = {group.id: group.name for group in region.groups}
        for interface in region.interfaces:
            carried = next((a for a in interface.addresses if address in network_of(a)), None)
            if carried:
                for group in interface.groups:
                    name = group_names.get(group, "not in the ruleset")
                    yield member_of(region, interface, carried, group, name)


def may_reach(policy: HostPolicy) -> Iterator[tuple[InterfacePolicy, tuple[Grant, ...]]]:
    """List all that each interface of the host lets in, sorted by service."""
    for interface in policy.interfaces:
        yield (
            interface,
            tuple(_grant(allow) for allow in sorted(interface.allows, key=_by_service)),
        )


def _by_service(allow: Allow) -> tuple[str, str, int]:
    return (service_text(allow.service), allow.group.id, allow.rule)


def _addressed(policy: HostPolicy, destination: Address) -> InterfacePolicy:
    """Return the interface whose rules count for an address, as `compiler` does."""
    holding = (i for i in policy.interfaces if any(destination in a for a in i.addresses))
    return next(holding, policy.interfaces[0])


def _reason(policy: HostPolicy, walk: Walk) -> str:
    if not walk.visits:
        return f"not judged: {_outside(policy.host.scope)}"
    # The accept and drop chains say only that, not why.
    reasons = [v.rule.comment for v in walk.visits if v.chain not in (names.ACCEPT, names.DROP)]
    return reasons[-1]


def _outside(scope: Scope) -> str:
    match scope:
        case VpcScope(filtered):
            listed = ", ".join(canonical(network) for network in filtered)
            return f"the source is outside filtered_cidrs ({listed})"
        case IpsecScope():
            return "the packet did not come out of IPsec on this host"
        case InterfaceScope(interfaces):
            return f"the packet does not arrive on {', '.join(interfaces)}"


def _granted(
    dataplane: Dataplane, walk: Walk, packet: Packet, source_is: tuple[Member, ...]
) -> Grant | None:
    family = family_of(packet.source)
    (table,) = (table for table in dataplane.tables if table.family is family)
    for visit in walk.visits:
        for allow in (a for a in visit.rule.origins if is_service(a.service, packet)):
            grant = _grant(allow, packet.source, source_is)
            if grant.matched:
                sets = (match.name for match in visit.rule.matches if isinstance(match, SetMatch))
                line = table.line(visit.chain, visit.rule)
                return replace(grant, kernel_rule=line, set=next(sets, None))
    return None


def _grant(
    allow: Allow, source: Address | None = None, source_is: tuple[Member, ...] = ()
) -> Grant:
    peer = allow.peer
    groups = {group.id for group in peer.groups}
    return Grant(
        group=allow.group.id,
        group_name=allow.group.name,
        vpc=allow.group.vpc,
        rule=allow.rule,
        service=service_text(allow.service),
        source=peer.name,
        source_label=peer.label,
        addresses=peer.addresses,
        matched=tuple(a for a in peer.addresses if source and source in parse_network(a)),
        members=tuple(member for member in source_is if member.group in groups),
    )


def member_of(
    region: Region, interface: Interface, address: str, group: str, group_name: str
) -> Member:
    """Describe one address of an interface as a member of one of its groups."""
    return Member(
        address=address,
        interface=interface.id,
        instance=interface.instance,
        region=region.name,
        vpc=interface.vpc,
        group=group,
        group_name=group_name,
    )
