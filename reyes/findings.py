"""What is doubtful about a ruleset as a whole: findings for people, before hosts act on it.

critical  the rules open more than anybody can have meant
warning   somebody is not let in, or not judged, who seems to be meant
note      worth knowing
"""

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Literal

from msgspec import Struct

from reyes.matching import GroupMatching
from reyes.net import Everything, Network, Ports, canonical, contains, parse_network, service_text
from reyes.policy import inexpressible, stands_for_nobody
from reyes.ruleset import Content, Ingress, Region, SecurityGroup

_EXCLUDE = "if this is the group that opens hosts to the VPN, name it in excluded_group_names"

Severity = Literal["critical", "warning", "note"]


class Finding(Struct, frozen=True, kw_only=True):
    """One doubtful thing, and where it is."""

    severity: Severity
    kind: str
    where: str
    message: str


def find(content: Content, filtered: tuple[Network, ...] | None) -> tuple[Finding, ...]:
    """Look for doubtful things; `filtered` are the networks that hosts judge, None if all."""
    order = ("critical", "warning", "note")
    found = [*_vpc_findings(content, filtered), *_matched_findings(content)]
    matching, carried = GroupMatching(content), _carried(content)
    for region in content.regions:
        finder = _RuleFinder(content, region, matching, carried, filtered)
        for group in region.groups:
            if not matching.is_excluded(group):
                for number, ingress in enumerate(group.ingress, start=1):
                    found += finder.findings(group, number, ingress)
    return tuple(
        sorted(found, key=lambda f: (order.index(f.severity), f.kind, f.where, f.message))
    )


def _vpc_findings(content: Content, filtered: tuple[Network, ...] | None) -> Iterator[Finding]:
    networks = [
        (f"{vpc.id} in {region.name}", parse_network(cidr))
        for region in content.regions
        for vpc in region.vpcs
        for cidr in vpc.cidrs
    ]
    for (one, first), (other, second) in combinations(networks, 2):
        if one != other and first.version == second.version and first.overlaps(second):
            yield Finding(
                severity="warning",
                kind="overlapping VPCs",
                where=one,
                message=f"{first} overlaps {second} of {other}: hosts of either take the"
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


def _matched_findings(content: Content) -> Iterator[Finding]:
    matching = GroupMatching(content)
    for region in content.regions:
        for group in region.groups:
            meant = matching.meant_by(region.name, group)
            # Each set of groups once: at its first member.
            if len(meant) > 1 and min(meant) == (region.name, group.id):
                others = ", ".join(
                    f"{g.id} in {g.vpc}, {where}" for (where, _), g in meant.items()
                )
                yield Finding(
                    severity="note",
                    kind="groups that count as one",
                    where=f"{group.name!r}",
                    message=f"a reference to one means all: {others}",
                )


def _carried(content: Content) -> frozenset[tuple[str, str]]:
    """Return the groups that have members, by region and id."""
    return frozenset(
        (region.name, group)
        for region in content.regions
        for interface in region.interfaces
        if interface.addresses
        for group in interface.groups
    )


class _RuleFinder:
    """Findings about single rules of one region."""

    def __init__(
        self,
        content: Content,
        region: Region,
        matching: GroupMatching,
        carried: frozenset[tuple[str, str]],
        filtered: tuple[Network, ...] | None,
    ) -> None:
        self._region = region
        self._matching = matching
        self._filtered = filtered
        self._groups = {group.id: group for group in region.groups}
        self._prefix_lists = {entry.id: entry.cidrs for entry in region.prefix_lists}
        self._own = {vpc.id: tuple(map(parse_network, vpc.cidrs)) for vpc in region.vpcs}
        self._vpcs = [
            (vpc.id, parse_network(cidr))
            for r in content.regions
            for vpc in r.vpcs
            for cidr in vpc.cidrs
        ]
        self._carried = carried
        self._parsed = cache(parse_network)  # many rules name the same networks

    def findings(self, group: SecurityGroup, number: int, ingress: Ingress) -> Iterator[Finding]:
        for severity, kind, message in (
            *self._unreachable(ingress),
            *self._open(group, ingress),
            *self._idle(group, ingress),
        ):
            yield Finding(
                severity=severity,
                kind=kind,
                where=f"{group.id} ({group.name}) in {self._region.name}, rule {number}",
                message=f"{service_text(ingress.service)}: {message}",
            )

    def _unreachable(self, ingress: Ingress) -> Iterator[tuple[Severity, str, str]]:
        reason = inexpressible(ingress.service)
        if reason:
            yield "warning", "rule that matches nothing", reason
        for prefix_list in ingress.prefix_lists:
            if prefix_list not in self._prefix_lists:
                yield "warning", "unreadable prefix list", f"{prefix_list} stands for nobody"
        for reference in ingress.groups:
            named = self._groups.get(reference.id)
            nobody = stands_for_nobody(reference, named, self._matching, self._region.name)
            if nobody:
                yield "warning", "reference to nobody", f"{reference.id}: {nobody}"
            elif named and self._carried.isdisjoint(
                self._matching.meant_by(self._region.name, named)
            ):
                yield "note", "group without members", f"{reference.id} ({named.name}) is empty"

    def _open(self, group: SecurityGroup, ingress: Ingress) -> Iterator[tuple[Severity, str, str]]:
        match ingress.service:
            case Everything() | Ports(first=0, last=65535):
                pass
            case _:
                return
        foreign = (*(self._filtered or ()), *(n for vpc, n in self._vpcs if vpc != group.vpc))
        for cidr in self._networks(ingress):
            swallowed = [canonical(wide) for wide in foreign if contains(cidr, wide)]
            if swallowed:
                yield (
                    "critical",
                    "open to whole networks",
                    f"{cidr} holds {', '.join(swallowed)}; {_EXCLUDE}",
                )

    def _idle(self, group: SecurityGroup, ingress: Ingress) -> Iterator[tuple[Severity, str, str]]:
        """Find rules that no judged packet can match: their sources are local or not judged."""
        networks = self._networks(ingress)
        if ingress.groups or not networks:
            return
        own = self._own.get(group.vpc, ())
        if all(self._is_never_judged(network, own) for network in networks):
            yield "note", "rule that never matters", "no packet from its sources is judged"

    def _is_never_judged(self, network: Network, own: tuple[Network, ...]) -> bool:
        if self._filtered is None:
            return False
        return _inside(network, own) or not any(
            network.version == f.version and network.overlaps(f) for f in self._filtered
        )

    def _networks(self, ingress: Ingress) -> list[Network]:
        listed = (cidr for p in ingress.prefix_lists for cidr in self._prefix_lists.get(p, ()))
        return [self._parsed(cidr) for cidr in (*ingress.cidrs, *listed)]


def _inside(network: Network, outer: tuple[Network, ...]) -> bool:
    return any(contains(one, network) for one in outer)
