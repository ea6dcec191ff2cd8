"""Many rules as a decision tree, so that no packet has to walk them all.

Rules are sorted by protocol, and those of tcp and udp by destination port: a chain stands for a
range of ports, accepts what is open in all of it, and goes on to one of four chains that divide
the rest. A packet meets a few chains instead of a thousand rules. Each way ends in a denial.

Sources that open the same thing share one set where they are too many for a look-up each. The
union costs members, so there is a budget: what does not fit is looked up one by one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

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
from reyes.netfilter.iptables import Chain, Goto, Match, Rule
from reyes.policy import Allow

PLAIN_RULES = 16
"""Up to so many rules are as cheap to walk one after the other, and easier to read."""

LEAF_SERVICES = 4
"""A chain with at most so many services is not divided any further."""

FAN_OUT = 4
"""A chain leads to so many others: 1,000 services take five levels, and nft allows 16 chains."""

LOOKUPS = 3
"""So many sources are looked up one by one, more are united; one where a way goes on below."""

UNION_FACTOR = 32
"""The unions of one tree may hold so many times the members that its sources have."""

MAX_COMMENT = 200


@dataclass(frozen=True, slots=True)
class Source:
    """Whom a part of a rule is open to, in one family; without `match` it is everybody."""

    match: Match | None
    members: tuple[str, ...]
    text: str
    allow: Allow


MakeSet = Callable[[str, Sequence[str]], Match]
"""Make a set of this label and these members, and return the match for it."""


def plain_rules(sources: Sequence[Source], denied: Rule) -> tuple[Rule, ...]:
    """Write one rule a source, in the order of the groups' rules."""
    return (*(_rule((source,), source.allow.service) for source in sources), denied)


class TreeCompiler:
    """The decision tree of one interface; `number` keeps its chains apart from others'."""

    def __init__(
        self, sources: Sequence[Source], number: int, denied: Rule, make_set: MakeSet
    ) -> None:
        self._number = number
        self._denied = denied
        self._make_set = make_set
        self._budget = UNION_FACTOR * len({m for source in sources for m in source.members})
        self._by_service: dict[Service, list[Source]] = {}
        for source in sources:
            self._by_service.setdefault(source.allow.service, []).append(source)

    def chains(self, name: str) -> Iterator[Chain]:
        """Yield the chains of the tree, the one of `name` first.

        Whole protocols come first where a way leads on for the same packets, else last: no packet
        should meet a rule for nothing.
        """
        branches = [*self._port_branches(), *self._icmp_branches()]
        before: list[Rule] = []
        after: list[Rule] = []
        for service, sources in self._by_service.items():
            if isinstance(service, Everything | Protocol):
                apart = isinstance(service, Protocol) and service.number not in _BRANCHED
                (after if apart else before).extend(self._accept(sources, service))
        ways = [_protocol_way(protocol, chains[0].name) for protocol, chains in branches]
        yield Chain(name, (*before, *ways, *after, self._denied))
        for _, chains in branches:
            yield from chains

    def _port_branches(self) -> Iterator[tuple[str, list[Chain]]]:
        for protocol in _PORT_PROTOCOLS:
            services = [
                s for s in self._by_service if isinstance(s, Ports) and s.protocol == protocol
            ]
            if services:
                every_port = Ports(protocol=protocol, first=0, last=65535)
                yield protocol, list(self._port_chains(services, every_port))

    def _port_chains(self, services: list[Ports], part: Ports) -> Iterator[Chain]:
        """Yield the chains for a range of ports; `services` are those that meet it."""
        name = self._port_chain_name(part)
        covering = [s for s in services if s.first <= part.first and part.last <= s.last]
        inner = [s for s in services if not (s.first <= part.first and part.last <= s.last)]
        sources = [source for s in covering for source in self._by_service[s]]
        rules = self._accept(sources, part, implied=True)
        if any(source.match is None for source in sources):
            yield Chain(name, tuple(rules))
        elif len(inner) <= LEAF_SERVICES:
            rules += [rule for s in inner for rule in self._accept(self._by_service[s], s)]
            yield Chain(name, (*rules, self._denied))
        else:
            parts = _parts(inner, part)
            rules += [_way(one, self._port_chain_name(one)) for one in parts[:-1]]
            rules.append(_way(Everything(), self._port_chain_name(parts[-1])))
            yield Chain(name, tuple(rules))
            for one in parts:
                meeting = [s for s in inner if s.first <= one.last and one.first <= s.last]
                yield from self._port_chains(meeting, one)

    def _icmp_branches(self) -> Iterator[tuple[str, list[Chain]]]:
        services = [s for s in self._by_service if isinstance(s, Icmp)]
        if services:
            every_type = Icmp(protocol=services[0].protocol, type=-1, code=-1)
            yield every_type.protocol, list(self._icmp_chains(services, every_type))

    def _icmp_chains(self, services: list[Icmp], part: Icmp) -> Iterator[Chain]:
        """Yield the chains for ICMP, or for one type of it; iptables has no ranges of types."""
        kind = "" if part.type == -1 else f"-{part.type}"
        name = f"{names.CHAIN_PREFIX}{self._number}-{part.protocol}{kind}"
        rules = self._accept(self._by_service.get(part, []), part, implied=True)
        below: list[Chain] = []
        by_type: dict[int, list[Icmp]] = {}
        for service in services:
            if service != part:
                by_type.setdefault(service.type, []).append(service)
        for number, same in by_type.items():
            if part.type == -1 and len(same) > LEAF_SERVICES:
                of_type = Icmp(protocol=part.protocol, type=number, code=-1)
                chains = list(self._icmp_chains(same, of_type))
                rules.append(_way(of_type, chains[0].name))
                below += chains
            else:
                rules += [rule for s in same for rule in self._accept(self._by_service[s], s)]
        yield Chain(name, (*rules, self._denied))
        yield from below

    def _accept(
        self, sources: Sequence[Source], service: Service, *, implied: bool = False
    ) -> list[Rule]:
        """Write the rules that open a service to sources; `implied`: the chain stands for it."""
        everybody = tuple(source for source in sources if source.match is None)
        if everybody:
            return [_rule(everybody, service, implied=implied)]
        by_match: dict[Match | None, list[Source]] = {}
        for source in sources:
            by_match.setdefault(source.match, []).append(source)
        if len(by_match) > (1 if implied else LOOKUPS):
            members = sorted({member for source in sources for member in source.members})
            if len(members) <= self._budget:
                self._budget -= len(members)
                united = self._make_set("union", members)
                return [_rule(sources, service, united, implied=implied)]
        return [_rule(same, service, implied=implied) for same in by_match.values()]

    def _port_chain_name(self, part: Ports) -> str:
        return f"{names.CHAIN_PREFIX}{self._number}-{part.protocol}-{part.first}-{part.last}"


_PORT_PROTOCOLS: tuple[Literal["tcp", "udp"], ...] = ("tcp", "udp")
_BRANCHED = frozenset(PROTOCOL_NUMBERS.values())


def _parts(services: Sequence[Ports], part: Ports) -> list[Ports]:
    """Cut a range into at most FAN_OUT parts, where services begin or end, as evenly as may be."""
    edges = (edge for s in services for edge in (s.first, s.last + 1))
    cuts = sorted({edge for edge in edges if part.first < edge <= part.last})
    chosen = sorted({cuts[len(cuts) * n // FAN_OUT] for n in range(1, FAN_OUT)})
    starts = [part.first, *chosen]
    ends = [*(cut - 1 for cut in chosen), part.last]
    return [
        Ports(protocol=part.protocol, first=first, last=last)
        for first, last in zip(starts, ends, strict=True)
    ]


def _protocol_way(protocol: str, chain: str) -> Rule:
    match = Protocol(number=PROTOCOL_NUMBERS[protocol])
    return Rule((match,), Goto(chain), f"{protocol}: see {chain}")


def _way(service: Service, chain: str) -> Rule:
    return Rule(_service_match(service), Goto(chain), f"{service_text(service)}: see {chain}")


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
        *(() if implied else _service_match(service)),
        *((source,) if source else ()),
    )
    origins = tuple(source.allow for source in sources)
    return Rule(matches, Goto(names.ACCEPT), _comment(sources, service), origins)


def _service_match(service: Service) -> tuple[Match, ...]:
    return () if isinstance(service, Everything) else (service,)


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
