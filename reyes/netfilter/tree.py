"""Many rules as a decision tree, so that no packet has to walk them all.

Rules are sorted by protocol, and those of tcp and udp by destination port. Where services begin
and end they cut the ports into stretches, each open to the same sources in all of it. A chain
stands for a part of the ports: each of its ways takes a quarter of the stretches that are left,
and the last few are looked at one by one. So the parts that a packet reaches late have few chains
below them, and every packet pays about the same. Each way ends in a denial.

Sources that open the same thing share one set. Such a union costs members, so there is a budget,
and a form of the tree with fewer members and more look-ups for those whom it does not suffice.

ICMP types and protocol numbers can only be walked, because iptables has no ranges of them. One
look-up keeps those whom none of them is open to from walking many.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, TypeVar

from msgspec import Struct

from reyes.net import (
    PROTOCOL_NUMBERS,
    Everything,
    Icmp,
    Ports,
    Protocol,
    Service,
    service_text,
)
from reyes.netfilter import names
from reyes.netfilter.iptables import Chain, Goto, Match, Rule, service_matches, way_comment
from reyes.policy import Allow

PLAIN_RULES = 16
"""Up to so many rules are as cheap to walk one after the other, and easier to read."""

LEAF_SERVICES = 8
"""A chain looks at so many stretches of one port, or half as many longer ones, one by one."""

SHARE = 4
"""A way takes this part of what is left. 1,000 ports take five levels; nft allows 16 in all.

To spare members it is this part of all: what is open in the rest would be looked up in each way.
"""

LEAP = 64
"""Sources of a whole part are looked up before those of its stretches where there are so many
times fewer stretches than at the look-up before."""

LOOKUPS = 3
"""So many sources of a service are looked up one by one, in a list or to spare members."""

UNION_FACTOR = 32
"""The unions of one tree may hold so many times the members that its sources have."""

UNION_LEAST = 100_000
"""The unions of any tree may hold so many members: 3 MB of the kernel's memory, and 0.4 s."""

MAX_COMMENT = 200


class Source(Struct, frozen=True):
    """Whom a part of a rule is open to, in one family; without `match` it is everybody."""

    match: Match | None
    members: tuple[str, ...]
    text: str
    allow: Allow


Key = TypeVar("Key")
MakeSet = Callable[[str, Sequence[str]], Match]
"""Make a set of this label and these members, and return the match for it."""


def plain_rules(sources: Sequence[Source], denied: Rule, make_set: MakeSet) -> tuple[Rule, ...]:
    """Write one rule a source, in the order of the groups' rules; many of one service unite."""
    by_service = _grouped(sources, lambda source: source.allow.service)
    rules: list[Rule] = []
    for source in sources:
        same = by_service[source.allow.service]
        matches = {each.match for each in same}
        if len(matches) <= LOOKUPS or None in matches:
            rules.append(_rule((source,), source.allow.service))
        elif source is same[0]:
            members = sorted({member for each in same for member in each.members})
            rules.append(_rule(same, source.allow.service, make_set("union", members)))
    return (*rules, denied)


class _Stretch(Struct, frozen=True):
    """Neighbouring ports that are open to the sources of the same services."""

    ports: Ports
    services: frozenset[Ports]


_Walked = tuple[Sequence[Service], Sequence[Rule]]
"""Services, and the rules that stand for them where they can only be walked."""


class _TooManyMembersError(Exception):
    """The unions would hold more members than they may."""


class TreeCompiler:
    """The decision tree of one interface; `number` keeps its chains apart from others'."""

    def __init__(
        self, sources: Sequence[Source], number: int, denied: Rule, make_set: MakeSet
    ) -> None:
        self._prefix = f"{names.CHAIN_PREFIX}{number}-"
        self._denied = denied
        self._make_set = make_set
        own = {source.match: len(source.members) for source in sources}
        self._most = max(UNION_FACTOR * sum(own.values()), UNION_LEAST)
        self._by_service = _grouped(sources, lambda source: source.allow.service)
        self._for_all = {source.allow.service for source in sources if source.match is None}

    def chains(self, name: str) -> list[Chain]:
        """Return the chains of the tree, the one of `name` first: with few look-ups if it can be.

        Where the unions for that would hold too many members these are spared instead.
        """
        try:
            return self._tree(name, sparing=False)
        except _TooManyMembersError:
            return self._tree(name, sparing=True)

    def _tree(self, name: str, *, sparing: bool) -> list[Chain]:
        """Write all chains; those of tcp or of udp, whichever has more, begin in the first.

        Whole protocols come first where a way leads on for the same packets, else last: no packet
        should meet a rule for nothing.
        """
        self._sparing, self._room = sparing, self._most
        self._unions: dict[frozenset[Match | None], Match] = {}
        entered = sorted(self._port_branches(), key=lambda branch: len(branch[1]))
        branches = [*entered[:-1], *self._icmp_branches()]
        led_on = {PROTOCOL_NUMBERS[protocol] for protocol, _ in (*entered, *branches)}
        before: list[Rule] = []
        apart: list[_Walked] = []
        for service, sources in self._by_service.items():
            if isinstance(service, Protocol) and service.number not in led_on:
                apart.append(((service,), self._accept(sources, service)))
            elif isinstance(service, Everything | Protocol):
                before += self._accept(sources, service)
        after, below = self._walk(apart, f"{self._prefix}protocols")
        ways = [_way(_whole(protocol), root.name) for protocol, (root, *_) in branches]
        below += [chain for _, chains in branches for chain in chains]
        for protocol, (root, *chains) in entered[-1:]:
            ways += root.rules[:-1]
            below += chains
            if after:
                ways.append(Rule((_whole(protocol),), self._denied.target, self._denied.comment))
        return [Chain(name, (*before, *ways, *after, self._denied)), *below]

    def _port_branches(self) -> Iterator[tuple[str, list[Chain]]]:
        for protocol in _PORT_PROTOCOLS:
            services = [
                s for s in self._by_service if isinstance(s, Ports) and s.protocol == protocol
            ]
            if services:
                ports, stretches = _every_port(protocol), self._stretches(services)
                chains = self._port_chains(ports, stretches, frozenset(), len(stretches))
                yield protocol, list(chains)

    def _stretches(self, services: Sequence[Ports]) -> list[_Stretch]:
        """Cut the ports where services begin and end; who is everybody needs no other beside."""
        beginning: dict[int, list[Ports]] = {}
        for service in services:
            beginning.setdefault(service.first, []).append(service)
            beginning.setdefault(service.last + 1, [])
        found: list[_Stretch] = []
        meeting: list[Ports] = []
        for first, after in pairwise(sorted(beginning)):
            meeting = [s for s in (*meeting, *beginning[first]) if first <= s.last]
            opened = frozenset(s for s in meeting if s in self._for_all) or frozenset(meeting)
            if not opened:
                continue
            joined = bool(found) and (found[-1].ports.last + 1, found[-1].services) == (
                first,
                opened,
            )
            begin = found.pop().ports.first if joined else first
            found.append(_Stretch(_part(services[0], begin, after - 1), opened))
        return found

    def _port_chains(
        self, part: Ports, stretches: Sequence[_Stretch], done: frozenset[Ports], before: int
    ) -> Iterator[Chain]:
        """Yield the chains for a part of the ports; only its packets arrive there.

        The sources of `done` have been looked up, and there were `before` stretches then.
        """
        rules: list[Rule] = []
        shut = (s.services for s in stretches if self._for_all.isdisjoint(s.services))
        covering = [
            service
            for service in next(shut, stretches[0].services) - done
            if service.first <= part.first and part.last <= service.last
        ]
        if covering and len(stretches) > 1 and (self._sparing or before >= LEAP * len(stretches)):
            rules += self._accept_all(covering, part, implied=part != _every_port(part.protocol))
            done = done.union(covering)
            stretches = [stretch for stretch in stretches if stretch.services - done]
            before = len(stretches)
        below: list[Chain] = []
        first, whole = part.first, len(stretches)
        while len(stretches) > 1 and sum(map(_weight, stretches)) > LEAF_SERVICES:
            divided = whole if self._sparing else len(stretches)
            share = max(1, LEAF_SERVICES // 2, divided // SHARE)
            taken, stretches = stretches[:share], stretches[share:]
            one = _part(part, first, taken[-1].ports.last)
            # One border is enough; iptables prints nothing for 0:65535, by which nobody is known.
            asked = one if one.last == _LAST_PORT else _part(part, 0, one.last)
            rules.append(_way(asked, self._port_chain_name(one)))
            below += self._port_chains(one, taken, done, before)
            first = one.last + 1
        for stretch in stretches:
            rules += self._accept_all(stretch.services - done, stretch.ports)
        yield Chain(self._port_chain_name(part), (*rules, self._denied))
        yield from below

    def _icmp_branches(self) -> Iterator[tuple[str, list[Chain]]]:
        """Yield the chains of the one ICMP that the family has, if any service is of it."""
        by_type: dict[Icmp, list[_Walked]] = {}
        for service, sources in self._by_service.items():
            if isinstance(service, Icmp):
                of_type = Icmp(protocol=service.protocol, type=service.type, code=-1)
                rules = self._accept(sources, service)
                by_type.setdefault(of_type, []).append(((service,), rules))
        if not by_type:
            return
        protocol = next(iter(by_type)).protocol
        name = f"{self._prefix}{protocol}"
        whole = by_type.pop(Icmp(protocol=protocol, type=-1, code=-1), [])
        types: list[_Walked] = []
        below: list[Chain] = []
        for of_type, codes in by_type.items():
            services = [service for same, _ in codes for service in same]
            ways, chains = self._walk(codes, f"{name}-{of_type.type}-codes")
            if len(codes) > 1:
                chains.insert(0, Chain(f"{name}-{of_type.type}", (*ways, self._denied)))
                ways = [_way(of_type, chains[0].name)]
            types.append((services, ways))
            below += chains
        ways, chains = self._walk(types, f"{name}-types")
        first = [rule for _, rules in whole for rule in rules]
        yield protocol, [Chain(name, (*first, *ways, self._denied)), *chains, *below]

    def _walk(self, walked: Sequence[_Walked], name: str) -> tuple[list[Rule], list[Chain]]:
        """Write rules that can only be walked: many of them in a chain for their sources alone."""
        before = [each for each in walked if not self._for_all.isdisjoint(each[0])]
        others = [each for each in walked if self._for_all.isdisjoint(each[0])]
        first = [rule for _, rules in before for rule in rules]
        rules = [rule for _, rules in others for rule in rules]
        if len(rules) > LEAF_SERVICES:
            services = [service for same, _ in others for service in same]
            sources = [source for service in services for source in self._by_service[service]]
            united = self._united(sources)
            if united:
                way = Rule((united,), Goto(name), f"sources of any: see {name}")
                return [*first, way], [Chain(name, (*rules, self._denied))]
        return [*first, *rules], []

    def _accept_all(
        self, services: Iterable[Ports], part: Ports, *, implied: bool = False
    ) -> list[Rule]:
        """Write the rules that open a part of the ports to the sources of all these services."""
        sources = [source for service in sorted(services) for source in self._by_service[service]]
        return self._accept(sources, part, implied=implied)

    def _accept(
        self, sources: Sequence[Source], service: Service, *, implied: bool = False
    ) -> list[Rule]:
        """Write the rules that open a service to sources; `implied`: the chain stands for it."""
        everybody = tuple(source for source in sources if source.match is None)
        if everybody:
            return [_rule(everybody, service, implied=implied)]
        by_match = _grouped(sources, lambda source: source.match)
        if len(by_match) > (LOOKUPS if self._sparing and not implied else 1):
            united = self._united(sources)
            if united:
                return [_rule(sources, service, united, implied=implied)]
        return [_rule(same, service, implied=implied) for same in by_match.values()]

    def _united(self, sources: Sequence[Source]) -> Match | None:
        """Return the match for all these sources together, if there is room for their members.

        Raises:
            _TooManyMembersError: there is none, and members have not been spared.
        """
        key = frozenset(source.match for source in sources)
        if key not in self._unions:
            members = sorted({member for source in sources for member in source.members})
            if len(members) > self._room:
                if not self._sparing:
                    raise _TooManyMembersError
                return None
            self._room -= len(members)
            self._unions[key] = self._make_set("union", members)
        return self._unions[key]

    def _port_chain_name(self, part: Ports) -> str:
        return f"{self._prefix}{part.protocol}-{part.first}-{part.last}"


_LAST_PORT = 65535
_PORT_PROTOCOLS: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")


def _grouped(sources: Iterable[Source], key: Callable[[Source], Key]) -> dict[Key, list[Source]]:
    found: dict[Key, list[Source]] = {}
    for source in sources:
        found.setdefault(key(source), []).append(source)
    return found


def _every_port(protocol: Literal["tcp", "udp"]) -> Ports:
    return Ports(protocol=protocol, first=0, last=_LAST_PORT)


def _part(ports: Ports, first: int, last: int) -> Ports:
    return Ports(protocol=ports.protocol, first=first, last=last)


def _weight(stretch: _Stretch) -> int:
    return 1 if stretch.ports.first == stretch.ports.last else 2


def _whole(protocol: str) -> Protocol:
    return Protocol(number=PROTOCOL_NUMBERS[protocol])


def _way(service: Service, chain: str) -> Rule:
    return Rule(service_matches(service), Goto(chain), way_comment(chain), marked=False)


def _rule(
    sources: Sequence[Source],
    service: Service,
    united: Match | None = None,
    *,
    implied: bool = False,
) -> Rule:
    """Write the rule that opens a service to sources of one match, or to all of a union."""
    source = united or sources[0].match
    matches = (
        *(() if implied else service_matches(service)),
        *((source,) if source else ()),
    )
    origins = tuple(source.allow for source in sources)
    return Rule(matches, Goto(names.ACCEPT), _comment(sources, service), origins)


def _comment(sources: Sequence[Source], service: Service) -> str:
    """Say which rules of which groups a rule stands for, as far as the space goes."""
    first, *others = sources
    text = f"{_rule_of(first)}: {service_text(first.allow.service)} from {first.text}"
    if not others:
        return text
    text = f"{service_text(service)}: {_rule_of(first)} from {first.text}"
    for number, source in enumerate(others):
        more = f", {_rule_of(source)} from {source.text}"
        if len(text) + len(more) > MAX_COMMENT:
            return f"{text} and {len(others) - number} more"
        text += more
    return text


def _rule_of(source: Source) -> str:
    return f"{source.allow.group.id} rule {source.allow.rule}"
