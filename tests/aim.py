"""Packets that aim at the borders of what a world says, and beside them."""

from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from itertools import chain
from random import Random
from typing import TypeVar

from reyes.net import Address, Everything, Icmp, Network, Ports, Protocol, Service
from reyes.netfilter.evaluate import Packet
from reyes.ruleset import Ingress, Interface
from tests.strategies_worlds import ARRIVALS, World

T = TypeVar("T")

TCP, UDP = 6, 17
ICMP = {4: 1, 6: 58}


class Aim:
    """Packets for a world, drawn by lot from its borders."""

    def __init__(self, world: World, lot: Random) -> None:
        self._lot = lot
        self._config = world.config
        self._interfaces = world.interfaces
        rules = [
            (interface, rule)
            for interface in world.interfaces
            for group in world.home.groups
            if group.id in interface.groups
            for rule in group.ingress
        ]
        self._to_cidrs = [(i, r.service, m) for i, r in rules if (m := _listed(world, r))]
        self._to_members = [(i, r.service, m) for i, r in rules if (m := _members(world, r))]
        self._services = [*dict.fromkeys(rule.service for _, rule in rules), Everything()]
        self._networks = [ip_network(text) for text in sorted(_networks(world))]
        own = {interface.vpc for interface in world.interfaces}
        self._own = [ip_network(c) for v in world.home.vpcs if v.id in own for c in v.cidrs]

    def packets(self, count: int) -> Iterator[Packet]:
        """Aim at the members that rules name, at the networks that they name, and at anything."""
        anything = [
            (interface, service, self._networks)
            for interface in self._interfaces
            for service in self._services
        ]
        for number in range(count):
            targets = (self._to_members, self._to_members, self._to_cidrs, anything)[number % 4]
            interface, service, networks = self._lot.choice(targets or anything)
            yield self._packet(networks, service, interface)

    def _packet(
        self, networks: Sequence[Network], service: Service, interface: Interface
    ) -> Packet:
        versions = {ip_network(address).version for address in interface.addresses}
        source = self._source([n for n in networks if n.version in versions] or networks)
        protocol, port, icmp = self._near(*kinds(service, source.version))
        return Packet(
            source=source,
            destination=self._destination(source.version, interface.addresses),
            protocol=protocol,
            port=port,
            icmp=icmp,
            interface=self._arrival(),
            from_ipsec=self._lot.random() < 0.9,
        )

    def _near(self, inside: Sequence[T], beside: Sequence[T]) -> T:
        """Choose what is meant, or at times what is just not."""
        meant = inside and (not beside or self._lot.random() < 0.75)
        return self._lot.choice(inside if meant else beside)

    def _source(self, networks: Sequence[Network]) -> Address:
        """Choose a border, as a rule beyond the host's own VPCs, whose packets are not judged."""
        source = self._near(*borders(self._lot.choice(networks)))
        for _ in range(4):
            if self._lot.random() < 0.1 or not any(source in network for network in self._own):
                break
            source = self._near(*borders(self._lot.choice(networks)))
        return source

    def _destination(self, version: int, wanted: Sequence[str]) -> Address:
        """Choose one of the wanted addresses, or at times their neighbour or nobody's."""
        held = [n for n in map(ip_network, wanted) if n.version == version]
        if not held or self._lot.random() < 0.05:
            return ip_address("10.99.0.1" if version == 4 else "2001:db8:99::1")
        return self._near(*borders(self._lot.choice(held)))

    def _arrival(self) -> str:
        if self._config.interfaces and self._lot.random() < 0.7:
            return self._lot.choice(self._config.interfaces).replace("+", "10")
        return self._lot.choice([*ARRIVALS, "lo"])


Borders = tuple[list[T], list[T]]
"""What is just inside of something, and what is just beside it."""


def borders(network: Network) -> Borders[Address]:
    """The first and last address of a network, and those beside them."""
    make: Callable[[int], Address] = type(network[0])
    beside = (int(network[0]) - 1, int(network[-1]) + 1)
    return (
        [network[0], network[-1]],
        [make(number) for number in beside if 0 <= number < 2**network.max_prefixlen],
    )


Kind = tuple[int, int | None, tuple[int, int] | None]


def kinds(service: Service, version: int) -> Borders[Kind]:
    """Protocol, port and ICMP type and code at the borders of a service, in one family."""
    match service:
        case Ports(protocol, first, last):
            number, other = (TCP, UDP) if protocol == "tcp" else (UDP, TCP)
            beside = [(number, p, None) for p in (first - 1, last + 1) if 0 <= p <= 65_535]
            return [(number, first, None), (number, last, None)], [*beside, (other, first, None)]
        case Icmp(_, kind, code):
            number, kind, code = ICMP[version], max(kind, 0), max(code, 0)
            beside_it = ((kind - 1, code), (kind + 1, code), (kind, code - 1), (kind, code + 1))
            return (
                [(number, None, (kind, code))],
                [
                    (number, None, (t, c))
                    for t, c in beside_it
                    if 0 <= min(t, c) <= max(t, c) <= 255
                ],
            )
        case Protocol(number):
            numbers = [n for n in (number - 1, number + 1) if 0 <= n <= 255]
            return [kind_of(number, version)], [kind_of(n, version) for n in numbers]
        case Everything():
            return [kind_of(n, version) for n in (TCP, UDP, 1, 47, 58, 132, 255)], []


def kind_of(protocol: int, version: int) -> Kind:
    if protocol == ICMP[version]:
        return protocol, None, (8 if version == 4 else 128, 0)
    return protocol, 443 if protocol in (TCP, UDP) else None, None


def _networks(world: World) -> set[str]:
    """All that the world says of addresses."""
    found = {*world.config.filtered_cidrs, *(safe.cidr for safe in world.config.failsafe)}
    for region in world.content.regions:
        found.update(*(vpc.cidrs for vpc in region.vpcs))
        found.update(*(entry.cidrs for entry in region.prefix_lists))
        for interface in region.interfaces:
            found.update(interface.addresses)
    return found


def _listed(world: World, rule: Ingress) -> list[Network]:
    """The networks that a rule names, and the entries of its prefix lists."""
    lists = [e.cidrs for e in world.home.prefix_lists if e.id in rule.prefix_lists]
    return [ip_network(text) for text in chain(rule.cidrs, *lists)]


def _members(world: World, rule: Ingress) -> list[Network]:
    """Whom a rule's references may mean, by any way of matching: some of them it does not."""
    referenced = {reference.id for reference in rule.groups}
    meant = [group for group in world.home.groups if group.id in referenced]
    alike = {
        (region.name, group.id)
        for region in world.content.regions
        for group in region.groups
        if any(group.name == one.name or group.tag == one.tag for one in meant)
    }
    return [
        ip_network(address)
        for region in world.content.regions
        for interface in region.interfaces
        if any((region.name, group) in alike for group in interface.groups)
        for address in interface.addresses
    ]
