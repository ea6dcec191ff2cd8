"""What a dataplane does with a new packet: a walk through the very values that are rendered.

The kernel's own semantics, for the matches and targets that the compiler uses: rules in order,
the first end of the walk counts, the end of a chain that was reached by goto returns to INPUT.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from reyes.net import (
    PROTOCOL_NUMBERS,
    Address,
    Everything,
    Icmp,
    Ports,
    Protocol,
    Service,
    family_of,
    parse_network,
)
from reyes.netfilter import names
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.entries import network_and_rest, packet_port, reach_of
from reyes.netfilter.iptables import (
    Chain,
    DestinationNetwork,
    DestinationSet,
    Established,
    FromIpsec,
    Goto,
    InInterface,
    Log,
    Match,
    RateLimit,
    Reject,
    Rule,
    SetMatch,
    SourceNetwork,
    SourcePortsSet,
    SourceServiceSet,
    SourceSet,
    Verdict,
)

Decision = Literal["not judged", "accepted", "denied"]


class Packet(Struct, frozen=True, kw_only=True):
    """The first packet of a flow, as it arrives in INPUT.

    `protocol` is IANA's number; `port` is the destination's, for tcp and udp; `icmp` is type and
    code, for ICMP of either family.
    """

    source: Address
    destination: Address
    protocol: int
    port: int | None = None
    icmp: tuple[int, int] | None = None
    interface: str = "eth0"
    from_ipsec: bool = False


class Visit(Struct, frozen=True):
    """A rule that matched, and its chain."""

    chain: str
    rule: Rule


class Walk(Struct, frozen=True):
    """A packet's way: the rules that matched, in order, and what became of it."""

    decision: Decision
    visits: tuple[Visit, ...]


class Evaluator:
    """A dataplane, ready for packets."""

    def __init__(self, dataplane: Dataplane) -> None:
        self._chains = {
            (table.family, chain.name): chain
            for table in dataplane.tables
            for chain in table.chains
        }
        self._members = {entry.name: entry.members for entry in dataplane.sets}
        self._indexes: dict[str, dict[int, dict[int, set[str]]]] = {}

    def walk(self, packet: Packet) -> Walk:
        """Follow a packet from the jump in INPUT to its end."""
        family = family_of(packet.source)
        visits: list[Visit] = []
        name = names.INPUT
        while True:
            chain = self._chains[family, name]
            for rule in self._matching(chain, packet):
                visits.append(Visit(name, rule))
                match rule.target:
                    case Goto(chain=name):
                        break
                    case Verdict.RETURN:
                        return Walk(_decision(name), tuple(visits))
                    case Verdict.DROP | Reject():
                        return Walk("denied", tuple(visits))
                    case Log():
                        continue
            else:
                return Walk(_decision(name), tuple(visits))

    def _matching(self, chain: Chain, packet: Packet) -> Iterator[Rule]:
        return (r for r in chain.rules if all(self._holds(m, packet) for m in r.matches))

    def _holds(self, match: Match, packet: Packet) -> bool:
        match match:
            case InInterface(name) if name.endswith("+"):
                return packet.interface.startswith(name[:-1])
            case InInterface(name):
                return packet.interface == name
            case SourceNetwork(network):
                return packet.source in network
            case DestinationNetwork(network):
                return packet.destination in network
            case SourceSet() | SourceServiceSet() | SourcePortsSet() | DestinationSet():
                return self._in_set(match, packet)
            case Established():
                return False
            case FromIpsec():
                return packet.from_ipsec
            case RateLimit():
                return True
            case _:
                return is_service(match, packet)

    def _in_set(self, match: SetMatch, packet: Packet) -> bool:
        match match:
            case SourceSet(name):
                return bool(self._beside(packet.source, name))
            case SourceServiceSet(name):
                service = packet_port(packet.protocol, packet.icmp)
                return service in self._beside(packet.source, name)
            case SourcePortsSet(name, first, last):
                reaches = map(reach_of, self._beside(packet.source, name))
                return any(begin <= first and last <= end for begin, end in reaches)
            case DestinationSet(name):
                return bool(self._beside(packet.destination, name))

    def _beside(self, address: Address, name: str) -> set[str]:
        """Return what stands in a set beside the networks that hold an address, if any do."""
        if name not in self._indexes:
            index: dict[int, dict[int, set[str]]] = {}
            for member in self._members[name]:
                network, beside = network_and_rest(member)
                shift, prefix = _key(network)
                index.setdefault(shift, {}).setdefault(prefix, set()).add(beside)
            self._indexes[name] = index
        by_shift = self._indexes[name].items()
        return set().union(*(found.get(int(address) >> shift, ()) for shift, found in by_shift))


def _key(text: str) -> tuple[int, int]:
    """Return how far addresses are shifted to see whether they are in a network, and to what."""
    network = parse_network(text)
    shift = network.max_prefixlen - network.prefixlen
    return shift, int(network.network_address) >> shift


def is_service(service: Service, packet: Packet) -> bool:
    """Tell whether a packet is of a service, wherever it comes from."""
    match service:
        case Ports(protocol, first, last):
            return packet.protocol == PROTOCOL_NUMBERS[protocol] and (
                packet.port is not None and first <= packet.port <= last
            )
        case Icmp(protocol, kind, code):
            found = packet.icmp or (-1, -1)
            return packet.protocol == PROTOCOL_NUMBERS[protocol] and (
                kind in (-1, found[0]) and code in (-1, found[1])
            )
        case Protocol(number):
            return packet.protocol == number
        case Everything():
            return True


def _decision(chain: str) -> Decision:
    """Name what it means to leave our chains from here; audit mode leaves from the drop chain."""
    match chain:
        case names.INPUT:
            return "not judged"
        case names.DROP:
            return "denied"
        case _:
            return "accepted"
