"""Explanations in words, a line at a time."""

from collections.abc import Iterator
from itertools import groupby

from reyes.explain import Explanation, Grant, Member
from reyes.net import PROTOCOL_NUMBERS
from reyes.netfilter.evaluate import Packet
from reyes.policy import InterfacePolicy, Omitted
from reyes.text import first_of, quoted
from reyes.uses import GroupUse, Use

SHOWN = 8
"""So many addresses or members of one source are listed; --json lists all."""

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}


def explanation_lines(explanation: Explanation, packet: Packet) -> Iterator[str]:
    """Put a verdict into words."""
    service = packet_text(packet)
    way = f"{service} from {packet.source} to {packet.destination}"
    judge = f" at {explanation.interface}" if explanation.interface else ""
    yield f"{explanation.decision}: {way}{judge}"
    yield f"  because      {explanation.reason.removeprefix(f'{explanation.decision}: ')}"
    grant = explanation.granted
    if grant:
        yield f"  rule         {rule_text(grant)}"
        yield f"  source       {source_text(grant)}"
        yield from (f"  matched by   {cidr}" for cidr in grant.matched if not grant.members)
        for member in grant.members:
            group = f"{member.group} ({quoted(member.group_name)})"
            yield f"  matched by   {member.address} in {group}"
        yield f"  kernel rule  {grant.kernel_rule}"
        if grant.set:
            yield f"  set          {grant.set}"
    yield from _sender_lines(explanation.source_is)
    if not explanation.source_is:
        yield f"  sender is    no interface in the ruleset has {packet.source}"
    for miss in explanation.near_misses:
        yield f"  near miss    {rule_text(miss)} allows {source_text(miss)}"
    if explanation.decision == "denied" and not explanation.near_misses:
        yield f"  near miss    none: no rule there is about {service}"
    yield from omitted_lines(explanation.omitted)


def _sender_lines(source_is: tuple[Member, ...]) -> Iterator[str]:
    """Say who carries the address, and which groups that interface is in."""
    for interface, members in groupby(source_is, key=lambda member: member.interface):
        first, *_ = memberships = list(members)
        owner = f" of {first.instance}" if first.instance else ""
        yield f"  sender is    {first.address} at {interface}{owner}"
        yield f"  sender in    {first.vpc}, {first.region}"
        for one in memberships:
            yield f"  its group    {one.group} ({quoted(one.group_name)})"


def reach_lines(interface: InterfacePolicy, grants: tuple[Grant, ...]) -> Iterator[str]:
    """Put into words who may reach an interface."""
    yield f"{interface.id} {' '.join(map(str, interface.addresses))}"
    if not grants:
        yield "  nobody that is judged"
    width = max((len(grant.service) for grant in grants), default=0)
    for grant in grants:
        yield f"  {grant.service:{width}}  from {source_text(grant)}  ({rule_text(grant)})"


def use_lines(use: GroupUse) -> Iterator[str]:
    """Put into words where a group is used."""
    yield f"{use.group} ({quoted(use.group_name)}) in {use.vpc}, {use.region}"
    if use.excluded:
        yield "  excluded: its rules allow nothing, and a reference to it matches nobody"
    yield from (f"  same as      {other}" for other in use.alike)
    members = [f"{member.address}: {_place(member)}" for member in use.members]
    yield from _shortened(members, "  member       ")
    yield from (f"  let in by    {_use_text(one)}" for one in use.let_in_by)
    if not use.let_in_by:
        yield "  let in by    no rule"


def omitted_lines(omitted: tuple[Omitted, ...]) -> Iterator[str]:
    """Put into words what allows nothing here."""
    for one in omitted:
        yield f"  omitted      {one}"


def packet_text(packet: Packet) -> str:
    """Write what a packet is of, as people say it."""
    name = _PROTOCOL_NAMES.get(packet.protocol, f"protocol {packet.protocol}")
    if packet.port is not None:
        return f"{name} {packet.port}"
    return f"{name} {packet.icmp[0]}/{packet.icmp[1]}" if packet.icmp else name


def _place(member: Member) -> str:
    owner = f"{member.instance}, " if member.instance else ""
    return f"{owner}{member.interface} in {member.vpc}, {member.region}"


def rule_text(grant: Grant) -> str:
    """Write which rule it is, and what it opens."""
    return f"{grant.group} ({quoted(grant.group_name)}) rule {grant.rule}: {grant.service}"


def _use_text(use: Use) -> str:
    place = f"{use.vpc}, {use.region}"
    return (
        f"{use.group} ({quoted(use.group_name)}) rule {use.rule}: {use.service}"
        f" as {use.reference} in {place}"
    )


def source_text(grant: Grant) -> str:
    """Write to whom a rule is open."""
    if grant.source == "cidrs":
        return first_of(grant.addresses, SHOWN, " ")
    label = f" ({quoted(grant.source_label)})" if grant.source_label != grant.source else ""
    number = len(grant.addresses)
    return f"{grant.source}{label}, {number} address{'' if number == 1 else 'es'}"


def _shortened(lines: list[str], prefix: str) -> Iterator[str]:
    yield from (f"{prefix}{line}" for line in lines[:SHOWN])
    if len(lines) > SHOWN:
        yield f"{prefix}and {len(lines) - SHOWN} more"
