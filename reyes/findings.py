"""What is doubtful about a ruleset as a whole: findings for people, before hosts act on it.

critical  the rules open more than anybody can have meant
warning   somebody is not let in, or not judged, who seems to be meant
note      worth knowing
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from ipaddress import collapse_addresses
from itertools import groupby
from typing import Literal

from msgspec import Struct

from reyes.config import Config
from reyes.host import filtered_networks, scope_of
from reyes.matching import GroupMatching
from reyes.members import JudgedSenders, network_of
from reyes.net import (
    Everything,
    Family,
    Network,
    Ports,
    canonical,
    contains,
    family_of,
    network_order,
    service_text,
    span,
    without,
)
from reyes.policy import why_inexpressible
from reyes.ruleset import Content, Ingress, Interface, Region, SecurityGroup
from reyes.text import quoted

_EXCLUDE = (
    "if this is the group that opens hosts to the VPN, name it in excluded_group_names,"
    " else narrow the rule"
)

_WHOLE_NETWORK = {Family.V4: 2**16, Family.V6: 2**72}
"""So many addresses are no handful of hosts: a /16 or a /56, as whole VPCs have."""

OPEN_TO_WHOLE_NETWORKS = "open to whole networks"
"""The kind of finding that a leader may refuse to publish (`plausible`)."""

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")


class Finding(Struct, frozen=True, kw_only=True):
    """One doubtful thing, and where it is."""

    severity: Severity
    kind: str
    where: str
    message: str


def find(content: Content, filtered: tuple[Network, ...] | None) -> tuple[Finding, ...]:
    """Look for doubtful things; `filtered` are the networks that hosts judge, None if all.

    Raises:
        SignatureError: one of the networks is none.
    """
    world = _World(content, filtered)
    found = [
        *_vpc_findings(world),
        *_matched_findings(content, world.matching),
        *_excluded_findings(content),
        *_unread_findings(content),
    ]
    for region in content.regions:
        finder = _RuleFinder(region, world)
        for group in region.groups:
            if not world.matching.is_excluded(group):
                for number, ingress in enumerate(group.ingress, start=1):
                    found += finder.findings(group, number, ingress)
    return tuple(
        sorted(found, key=lambda f: (SEVERITIES.index(f.severity), f.kind, f.where, f.message))
    )


def find_for(config: Config, content: Content) -> tuple[Finding, ...]:
    """Look for doubtful things, as far as a configuration knows what hosts judge.

    Where it says nothing of them every sender may be judged, not those of the default alone.

    Raises:
        SignatureError: a network of the content is none.
    """
    scope = scope_of(config.follower)
    return find(content, filtered_networks(scope) if config.has_follower_section else None)


class _World:
    """What is the same for the rules of all regions."""

    def __init__(self, content: Content, filtered: tuple[Network, ...] | None) -> None:
        self.matching = GroupMatching(content)
        self.carried = _carried(content)
        # Many rules name the same networks.
        self.network = cache(network_of)
        self.span = cache(lambda cidr: span(canonical(self.network(cidr))))
        self.senders = cache(
            lambda region, vpc: JudgedSenders(self.vpcs.get((region, vpc), ()), filtered)
        )
        self.filtered = filtered
        self.vpcs = {
            (region.name, vpc.id): [self.network(cidr) for cidr in vpc.cidrs]
            for region in content.regions
            for vpc in region.vpcs
        }


def _vpc_findings(world: _World) -> Iterator[Finding]:
    filtered = world.filtered
    networks = [
        (f"{vpc} in {region}", network)
        for (region, vpc), networks in world.vpcs.items()
        for network in networks
    ]
    networks.sort(key=lambda named: network_order(named[1]))
    for number, (one, wide) in enumerate(networks, start=1):
        # Networks that overlap are nested, hence neighbours: not all pairs are looked at.
        for other, inner in networks[number:]:
            if not contains(wide, inner):
                break
            if one != other:
                yield Finding(
                    severity="warning",
                    kind="overlapping VPCs",
                    where=one,
                    message=f"{wide} overlaps {inner} of {other}: hosts of either take the"
                    " other's packets for their own VPC's, and do not judge them",
                )
    for where, network in networks:
        # IPv6 is judged only where it is listed: a choice, not a doubt.
        if filtered is not None and network.version == 4 and not _inside(network, filtered):  # noqa: PLR2004 - IP's version
            yield Finding(
                severity="warning",
                kind="VPC outside filtered_cidrs",
                where=where,
                message=f"packets from {network} are not judged",
            )


def _matched_findings(content: Content, matching: GroupMatching) -> Iterator[Finding]:
    for region in content.regions:
        for group in region.groups:
            alike = matching.alike(region.name, group)
            # Each set of groups once: at its first member.
            if len(alike) > 1 and min(alike) == (region.name, group.id):
                others = "; ".join(
                    f"{g.id} in {g.vpc}, {where}" for (where, _), g in alike.items()
                )
                yield Finding(
                    severity="note",
                    kind="groups that count as one",
                    where=f"{group.name!r}",
                    message=f"a reference to one means all: {others}",
                )


def _excluded_findings(content: Content) -> Iterator[Finding]:
    names = {group.name for region in content.regions for group in region.groups}
    for name in content.excluded_group_names:
        if name not in names:
            yield Finding(
                severity="warning",
                kind="excluded group that is nowhere",
                where=f"{name!r}",
                message="no group has this name of excluded_group_names: is it spelt right?",
            )


def _unread_findings(content: Content) -> Iterator[Finding]:
    """Find groups that interfaces carry and nobody has read: whose rules open nothing."""
    for region in content.regions:
        carriers: defaultdict[str, list[Interface]] = defaultdict(list)
        for interface in region.interfaces:
            for group in interface.groups:
                carriers[group].append(interface)
        for identifier in carriers.keys() - {group.id for group in region.groups}:
            first, *others = carriers[identifier]
            more = f" and {len(others)} more carry" if others else " carries"
            yield Finding(
                severity="warning",
                kind="group that was not read",
                where=f"{identifier} in {region.name}",
                message=f"{first.id} of {first.vpc}{more} it, and its rules let nobody in:"
                " it may belong to an account that is no source",
            )


def _carried(content: Content) -> Mapping[tuple[str, str], set[str]]:
    """Return the VPCs of the members of groups that have any, by region and id."""
    carried: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for region in content.regions:
        for interface in region.interfaces:
            if interface.addresses:
                for group in interface.groups:
                    carried[region.name, group].add(interface.vpc)
    return carried


class _RuleFinder:
    """Findings about single rules of one region."""

    def __init__(self, region: Region, world: _World) -> None:
        self._region = region
        self._world = world
        self._prefix_lists = {entry.id: entry.cidrs for entry in region.prefix_lists}

    def findings(self, group: SecurityGroup, number: int, ingress: Ingress) -> Iterator[Finding]:
        vpcs = self._world.carried.get((self._region.name, group.id)) or {group.vpc}
        opened = (found for vpc in sorted(vpcs) for found in self._open(vpc, ingress))
        for severity, kind, message in (
            *self._unreachable(ingress),
            *dict.fromkeys(opened),
            *self._idle(vpcs, ingress),
        ):
            yield Finding(
                severity=severity,
                kind=kind,
                where=f"{group.id} ({quoted(group.name)}) in {self._region.name}, rule {number}",
                message=f"{service_text(ingress.service)}: {message}",
            )

    def _unreachable(self, ingress: Ingress) -> Iterator[tuple[Severity, str, str]]:
        matching, region = self._world.matching, self._region.name
        reason = why_inexpressible(ingress.service)
        if reason:
            yield "warning", "rule that matches nothing", reason
        for prefix_list in ingress.prefix_lists:
            if prefix_list not in self._prefix_lists:
                yield "warning", "unreadable prefix list", f"{prefix_list} stands for nobody"
        for reference in ingress.groups:
            named = matching.named_by(region, reference)
            nobody = matching.why_nobody(region, reference)
            if nobody:
                yield "warning", "reference to nobody", f"{reference.id}: {nobody}"
            elif named and self._world.carried.keys().isdisjoint(matching.alike(region, named)):
                empty = f"{reference.id} ({quoted(named.name)}) is empty"
                yield "note", "group without members", empty

    def _open(self, vpc: str, ingress: Ingress) -> Iterator[tuple[Severity, str, str]]:
        """Find what a rule opens to whole networks, on hosts of a VPC."""
        match ingress.service:
            case Everything() | Ports(first=0 | 1, last=65535):
                pass
            case _:
                return
        filtered, vpcs = self._world.filtered, self._world.vpcs
        foreign = [
            *(filtered or ()),
            *(n for (_, other), own in vpcs.items() if other != vpc for n in own),
        ]
        judged: list[Network] = []
        for cidr in _joined(map(self._world.network, self._cidrs(ingress))):
            swallowed = [canonical(wide) for wide in foreign if contains(cidr, wide)]
            if swallowed:
                yield (
                    "critical",
                    OPEN_TO_WHOLE_NETWORKS,
                    f"{cidr} lets in all of {', '.join(swallowed)}; {_EXCLUDE}",
                )
            elif filtered is None or _inside(cidr, filtered):
                judged += without(cidr, vpcs.get((self._region.name, vpc), ()))
        for family, whole in _WHOLE_NETWORK.items():
            addresses = sum(n.num_addresses for n in judged if family_of(n) is family)
            if addresses >= whole:
                yield (
                    "critical",
                    OPEN_TO_WHOLE_NETWORKS,
                    f"{addresses} addresses of IPv{family.value} together; {_EXCLUDE}",
                )

    def _idle(self, vpcs: Iterable[str], ingress: Ingress) -> Iterator[tuple[Severity, str, str]]:
        """Find rules that no judged packet can match: their sources are local or not judged."""
        spans = [self._world.span(cidr) for cidr in self._cidrs(ingress)]
        if ingress.groups or not spans:
            return
        senders = [self._world.senders(self._region.name, vpc) for vpc in vpcs]
        if not any(one.judges(each) for one in senders for each in spans):
            yield "note", "rule that never matters", "no packet from its sources is judged"

    def _cidrs(self, ingress: Ingress) -> list[str]:
        listed = (cidr for p in ingress.prefix_lists for cidr in self._prefix_lists.get(p, ()))
        return [*ingress.cidrs, *listed]


def _joined(networks: Iterable[Network]) -> Iterator[Network]:
    """Join neighbours: what is listed in parts is as open as the whole."""
    for _, alike in groupby(sorted(networks, key=network_order), family_of):
        yield from collapse_addresses(alike)  # type: ignore[type-var]  # of one family each


def _inside(network: Network, outer: tuple[Network, ...]) -> bool:
    return any(contains(one, network) for one in outer)
