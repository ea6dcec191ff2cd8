"""Many rules as a decision tree, so that no packet has to walk them all.

Rules are sorted by protocol, and those of tcp and udp by destination port, as `division` says: a
chain stands for a part of the ports. Each way ends in a denial.

Sources that open the same thing share one set; where ranges of ports overlap, `port_sets` says
which.

ICMP types and protocol numbers have no ranges in iptables, so they can only be walked. Where they
are many one look-up of source and service together stands for all but a few of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise

from msgspec.structs import replace

from reyes.net import (
    ICMP_OF,
    PROTOCOL_NUMBERS,
    Everything,
    Family,
    Icmp,
    Ports,
    Protocol,
    Service,
)
from reyes.netfilter import names
from reyes.netfilter.division import Part, Stretch, cut, divide, part_of
from reyes.netfilter.entries import service_ports, without_everywhere
from reyes.netfilter.iptables import (
    Chain,
    Goto,
    Match,
    Rule,
    SourcePortsSet,
    SourceServiceSet,
    way_comment,
)
from reyes.netfilter.port_sets import port_matches
from reyes.netfilter.reaches import Opened
from reyes.netfilter.rules import (
    MakeSet,
    Source,
    comment_for,
    grouped,
    innocuous_icmp,
    members_of_all,
    rule_for,
    union,
)

WALKED_SERVICES = 8
"""So many ICMP types or protocols are looked at one by one."""

SERVICE_ENTRIES = 150_000
"""A set of sources and services has so many at most: of a type with any code 256 a source."""


class TreeCompiler:
    """The decision tree of one interface; `number` keeps its chains apart from others'."""

    def __init__(
        self,
        family: Family,
        sources: Sequence[Source],
        number: int,
        denied: Rule,
        make_set: MakeSet,
    ) -> None:
        self._family = family
        self._prefix = f"{names.CHAIN_PREFIX}{number}-"
        self._denied = denied
        self._denied_below = replace(denied, commented=False)
        self._make_set = make_set
        self._by_service = grouped(sources, lambda source: source.allow.service)
        self._unions: dict[frozenset[Match], Match] = {}
        self._networks_by_matches: dict[frozenset[Match | None], set[str]] = {}
        self._for_all = {source.allow.service for source in sources if source.match is None}

    def chains(self, name: str) -> list[Chain]:
        """Return the chains of the tree, the one of `name` first.

        Those of tcp or of udp, whichever has more, begin there. Whole protocols come first where a
        way leads on for the same packets, else last: no packet should meet a rule for nothing.
        """
        ports = [service for service in self._by_service if isinstance(service, Ports)]
        branched = {
            PROTOCOL_NUMBERS[protocol]
            for protocol in (ICMP_OF[self._family], *(service.protocol for service in ports))
        }
        first: list[Rule] = []
        unbranched: list[Service] = []
        for service, sources in self._by_service.items():
            if isinstance(service, Protocol) and service.number not in branched:
                unbranched.append(service)
            elif isinstance(service, Everything | Protocol):
                first.append(self._accept(sources, service))
        by_size = sorted(self._port_branches(ports), key=lambda branch: len(branch[1]))
        branches, largest = [*by_size[:-1], self._icmp_branch()], by_size[-1:]
        last, below = self._walk(unbranched, f"{self._prefix}protocols")
        ways = [_way(_whole(protocol), root.name) for protocol, (root, *_) in branches]
        below += [chain for _, chains in branches for chain in chains]
        for protocol, (root, *chains) in largest:
            ways += root.rules[:-1]
            below += chains
            if last:
                ways.append(Rule((_whole(protocol),), self._denied.target, self._denied.comment))
        return [Chain(name, (*first, *ways, *last, self._denied)), *below]

    def _port_branches(self, every: Iterable[Ports]) -> Iterator[tuple[str, list[Chain]]]:
        by_protocol = grouped(every, lambda service: service.protocol)
        for protocol, services in sorted(by_protocol.items()):
            stretches = cut(services, self._for_all)
            shared = [stretch for stretch in stretches if self._is_shared(stretch)]
            matches = self._matches(shared, services)
            self._tell_beside(stretches, matches)
            yield protocol, list(self._port_chains(divide(stretches), matches))

    def _is_shared(self, stretch: Stretch) -> bool:
        """Tell whether sources of several matches may use a stretch, and not everybody."""
        matches = self._matches_in(stretch)
        first = next(matches)
        return not stretch.for_all and any(match != first for match in matches)

    def _matches_in(self, stretch: Stretch) -> Iterator[Match | None]:
        return (source.match for each in stretch.services for source in self._by_service[each])

    def _matches(
        self, shared: Sequence[Stretch], services: Iterable[Ports]
    ) -> dict[Ports, list[Match]]:
        """Return the look-ups of stretches that several sources share."""
        sharing = frozenset[Ports]().union(*(stretch.services for stretch in shared))
        matches = {source.match for each in sharing for source in self._by_service[each]}
        pairs = ((source, each) for each in services for source in self._by_service[each])
        by_match = grouped(pairs, lambda pair: pair[0].match)
        opened = [
            Opened(match, [service for _, service in same], same[0][0].members)
            for match, same in by_match.items()
            if match and match in matches
        ]
        return port_matches([stretch.ports for stretch in shared], opened, self._make_set)

    def _tell_beside(
        self, stretches: Sequence[Stretch], matches: dict[Ports, list[Match]]
    ) -> None:
        """Let sets with ports tell as well what a single source may use beside, without a gap.

        Its own set would do, but hundreds of them are more than a CPU's cache holds.
        """
        for told, beside in chain(pairwise(stretches), pairwise(reversed(stretches))):
            ports = beside.ports
            if ports in matches:
                continue
            match matches.get(told.ports):
                case [SourcePortsSet(name)] if self._goes_on(told, beside):
                    matches[ports] = [SourcePortsSet(name, ports.first, ports.last)]
                case _:
                    pass

    def _goes_on(self, told: Stretch, beside: Stretch) -> bool:
        """Tell whether a source of a stretch may use one that touches it and is not for all."""
        low, high = sorted((told.ports, beside.ports))
        is_near = low.last + 1 == high.first and not beside.for_all
        return is_near and next(self._matches_in(beside)) in self._matches_in(told)

    def _port_chains(
        self, part: Part, matches: Mapping[Ports, Sequence[Match]]
    ) -> Iterator[Chain]:
        """Yield the chains for a part of the ports; only its packets arrive there."""
        rules: list[Rule] = []
        for way in part.ways:
            # Its first port tells nothing: what is below has gone other ways. Its last port is not
            # 65535, as a part keeps stretches of its own: iptables prints nothing for 0:65535.
            ports = part_of(way.ports, 0, way.ports.last)
            rules.append(_way(ports, self._port_chain_name(way.ports)))
        for stretch in part.stretches:
            sources = self._sources_of(stretch.services)
            if stretch.ports in matches:
                for match in matches[stretch.ports]:
                    own = [source for source in sources if source.match == match]
                    rules.append(rule_for(own or sources, stretch.ports, match))
            else:
                rules.append(self._accept(sources, stretch.ports))
        yield Chain(self._port_chain_name(part.ports), (*rules, self._denied_below))
        for way in part.ways:
            yield from self._port_chains(way, matches)

    def _sources_of(self, services: Iterable[Ports]) -> list[Source]:
        return [source for service in sorted(services) for source in self._by_service[service]]

    def _icmp_branch(self) -> tuple[str, list[Chain]]:
        """Return the chains of the one ICMP that the family has."""
        services = [service for service in self._by_service if isinstance(service, Icmp)]
        protocol = ICMP_OF[self._family]
        name = f"{self._prefix}{protocol}"
        first = [*innocuous_icmp(self._family)]
        first += self._walked(service for service in services if service.type == -1)
        ways, chains = self._walk([s for s in services if s.type != -1], f"{name}-types")
        return protocol, [Chain(name, (*first, *ways, self._denied_below)), *chains]

    def _walk(self, services: Sequence[Service], name: str) -> tuple[list[Rule], list[Chain]]:
        """Write the rules of services that have no ranges: a few one by one, many together.

        Many that have no room together are walked behind one look-up of their sources, in a chain
        of this name.
        """
        if len(services) <= WALKED_SERVICES:
            return self._walked(services), []
        together = self._with_room(services)
        rules = self._look_up_together([service for service in services if service in together])
        left = [service for service in services if service not in together]
        rules += self._walked(service for service in left if service in self._for_all)
        restricted = [service for service in left if service not in self._for_all]
        if len(restricted) > WALKED_SERVICES:
            united = self._united([source for s in restricted for source in self._by_service[s]])
            way = Rule((united,), Goto(name), f"sources of any: see {name}")
            return [*rules, way], [Chain(name, (*self._walked(restricted), self._denied_below))]
        return [*rules, *self._walked(restricted)], []

    def _walked(self, services: Iterable[Service]) -> list[Rule]:
        return [self._accept(self._by_service[service], service) for service in services]

    def _with_room(self, services: Sequence[Service]) -> frozenset[Service]:
        """Return the services that one set is to tell: all but a few, or what everybody may do."""
        room = SERVICE_ENTRIES
        entries = {
            service: len(service_ports(service, self._family)) * len(self._networks(service))
            for service in services
        }
        found: list[Service] = []
        for service in sorted(services, key=entries.__getitem__):
            if 0 < entries[service] <= room:
                room -= entries[service]
                found.append(service)
        few_left = len(services) - len(found) <= WALKED_SERVICES
        return frozenset(found if few_left else self._for_all.intersection(found))

    def _look_up_together(self, services: Sequence[Service]) -> list[Rule]:
        """Write the rule that looks up source and service at once, if it is to tell any."""
        if not services:
            return []
        sources = [source for s in services for source in _widest(self._by_service[s])]
        entries = {
            f"{network},{port}"
            for service in services
            for port in service_ports(service, self._family)
            for network in self._networks(service)
        }
        match = SourceServiceSet(self._make_set("service", entries))
        origins = tuple(source.allow for source in sources)
        return [Rule((match,), Goto(names.ACCEPT), comment_for(sources), origins)]

    def _networks(self, service: Service) -> set[str]:
        """Return the networks that a service is open to, as a set takes them."""
        sources = _widest(self._by_service[service])
        key = frozenset(source.match for source in sources)
        if key not in self._networks_by_matches:
            self._networks_by_matches[key] = without_everywhere(members_of_all(sources))
        return self._networks_by_matches[key]

    def _accept(self, sources: Sequence[Source], service: Service) -> Rule:
        """Write the rule that opens a service to sources, by one look-up if by any."""
        widest = _widest(sources)
        united = self._united(widest) if widest[0].match else None
        return rule_for(widest, service, united)

    def _united(self, sources: Sequence[Source]) -> Match:
        """Return the match for all these sources together, of which none is everybody."""
        key = frozenset(source.match for source in sources if source.match)
        if len(key) == 1:
            return next(iter(key))
        if key not in self._unions:
            self._unions[key] = union(self._make_set, members_of_all(sources))
        return self._unions[key]

    def _port_chain_name(self, part: Ports) -> str:
        return f"{self._prefix}{part.protocol}-{part.first}-{part.last}"


def _widest(sources: Sequence[Source]) -> Sequence[Source]:
    """Return those that stand for everybody, who includes all others; if there are none, all."""
    return [source for source in sources if source.match is None] or sources


def _whole(protocol: str) -> Protocol:
    return Protocol(number=PROTOCOL_NUMBERS[protocol])


def _way(service: Ports | Protocol, chain: str) -> Rule:
    return Rule((service,), Goto(chain), way_comment(chain), commented=False)
