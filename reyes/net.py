"""Networks and services: the values that rules are made of.

Text from outside becomes a value only here. A network is always written canonically:
a host as its bare address, everything else as address/prefix.
"""

import functools
from collections.abc import Iterable, Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import repeat
from operator import lt
from socket import AF_INET, getprotobyname, inet_pton
from typing import Annotated, Literal

from msgspec import Meta, Struct

LAST_PORT = 65535
PortNumber = Annotated[int, Meta(ge=0, le=LAST_PORT)]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Family(Enum):
    """An address family, by its IP version."""

    V4 = 4
    V6 = 6

    @property
    def everywhere(self) -> Network:
        """The network that holds every address of the family."""
        return ip_network("0.0.0.0/0" if self is Family.V4 else "::/0")


def family_of(value: Network | Address) -> Family:
    """Return the family that a network or an address belongs to."""
    return Family(value.version)


def only_family(networks: tuple[str, ...], family: Family) -> tuple[str, ...]:
    """Return those canonical networks that are of a family."""
    # Most peers are of one family, and one look at all of their text tells.
    if ":" not in "".join(networks):
        return networks if family is Family.V4 else ()
    wanted = family is Family.V6
    return tuple(network for network in networks if (":" in network) is wanted)


def parse_network(text: str) -> Network:
    """Read one network or single address; ValueError if it is none or has host bits set."""
    _refuse_scope(text)
    return ip_network(text)


def parse_address(text: str) -> Address:
    """Read one address; ValueError if it is none."""
    _refuse_scope(text)
    return ip_address(text)


def _refuse_scope(text: str) -> None:
    """Refuse `fe80::1%anything`: the standard library takes any text behind the % for a scope."""
    if "%" in text:
        raise ValueError(f"{text!r} has a scope, which a network cannot have")


def _text(address: Address) -> str:
    """Write an address in the form that all Pythons share: from 3.13 on it is `::ffff:1.2.3.4`."""
    text = str(address)
    if ":" not in text or "." not in text:
        return text
    low = int(address) & 0xFFFF_FFFF
    return f"::ffff:{low >> 16:x}:{low & 0xFFFF:x}"


def canonical(network: Network) -> str:
    """Write a network: a host as its bare address, all else with its prefix."""
    text = _text(network.network_address)
    if network.prefixlen == network.max_prefixlen:
        return text
    return f"{text}/{network.prefixlen}"


def network_order(network: Network) -> tuple[int, int, int]:
    """Return the key that sorts networks by family, address and prefix."""
    return network.version, int(network.network_address), network.prefixlen


def contains(outer: Network, inner: Network) -> bool:
    """Tell whether every address of `inner` is in `outer`; false across families."""
    return (
        outer.version == inner.version
        and outer.prefixlen <= inner.prefixlen
        and inner.network_address in outer
    )


Span = tuple[int, int, int]
"""A network as numbers: IP version, first and last address."""


def span(text: str) -> Span:
    """Read a canonical network as numbers; ValueError if it is none, or not canonical.

    Several times quicker than `parse_network`: rulesets hold addresses by the ten thousand.
    """
    number = _dotted_quad(text)
    if number is not None:
        return 4, number, number
    if "/" in text:
        network = parse_network(text)
        if canonical(network) != text:
            raise ValueError(f"{text!r} is written {canonical(network)}")
        return network.version, int(network.network_address), int(network.broadcast_address)
    address = parse_address(text)
    if _text(address) != text:
        raise ValueError(f"{text!r} is written {_text(address)}")
    number = int(address)
    return address.version, number, number


def in_order(texts: Sequence[str]) -> bool:
    """Tell whether texts are sorted and no two are alike: quicker than to sort them again."""
    return all(map(lt, texts, texts[1:]))


def check_networks(texts: Sequence[str]) -> None:
    """Raise ValueError unless each is a canonical network, quickest if all are IPv4 addresses."""
    try:
        if all(map(inet_pton, repeat(AF_INET), texts)):
            return
    except (OSError, ValueError):
        pass
    for text in texts:
        span(text)


def _dotted_quad(text: str) -> int | None:
    """Read a canonical IPv4 address, None if it is none, ten times quicker than `ipaddress`.

    inet_pton takes no other form (POSIX: four decimal numbers; glibc and musl: no zeros before).
    """
    try:
        return int.from_bytes(inet_pton(AF_INET, text))
    except (OSError, ValueError):
        return None


def is_within(inner: Span, outer: Span) -> bool:
    """Tell whether every address of `inner` is in `outer`."""
    return outer[0] == inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2]


def without(network: Network, others: Iterable[Network]) -> list[Network]:
    """Return the networks that hold what is left of `network` without the others."""
    left = [network]
    for other in others:
        left = [part for one in left for part in _rest(one, other)]
    return left


def _rest(network: Network, other: Network) -> Iterable[Network]:
    if contains(other, network):
        return ()
    if not contains(network, other):
        return (network,)
    return network.address_exclude(other)  # type: ignore[arg-type]  # of one family: contains() told


class Ports(Struct, frozen=True, order=True, tag_field="kind", tag="ports"):
    """A range of destination ports, both ends included."""

    protocol: Literal["tcp", "udp"]
    first: PortNumber
    last: PortNumber


class Icmp(Struct, frozen=True, order=True, tag_field="kind", tag="icmp"):
    """ICMP by type and code; -1 stands for all, as in EC2."""

    protocol: Literal["icmp", "icmpv6"]
    type: Annotated[int, Meta(ge=-1, le=255)]
    code: Annotated[int, Meta(ge=-1, le=255)]


class Protocol(Struct, frozen=True, order=True, tag_field="kind", tag="protocol"):
    """Every packet of one IP protocol, by IANA number."""

    number: Annotated[int, Meta(ge=0, le=255)]


class Everything(Struct, frozen=True, order=True, tag_field="kind", tag="all"):
    """Every packet of every protocol."""


PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
"""IANA's numbers of the protocols that have ports or types."""

ICMP_OF: dict[Family, Literal["icmp", "icmpv6"]] = {Family.V4: "icmp", Family.V6: "icmpv6"}
"""What each family calls its ICMP."""


def protocol_number(text: str) -> int | None:
    """Return a protocol's number, given as one or by the name that this host has for it."""
    if text.isdecimal():
        return int(text)
    try:
        return _number_of_name(text)
    except OSError:
        return None


@functools.cache
def _number_of_name(text: str) -> int:
    return getprotobyname(text)


EXTENSION_HEADERS = frozenset({43, 44, 51, 60})
"""IANA's numbers by which iptables tells no packets of IPv6, and warns of it.

Those that are told are known by what follows these headers. Only nft tells 51 all the same.
"""

Service = Ports | Icmp | Protocol | Everything


def service_families(service: Service) -> frozenset[Family]:
    """Return the families in which packets can be told to be of a service."""
    match service:
        case Protocol(number) if number in EXTENSION_HEADERS:
            return frozenset({Family.V4})
        case Icmp(protocol="icmp"):
            return frozenset({Family.V4})
        case Icmp():
            return frozenset({Family.V6})
        case _:
            return frozenset(Family)


def service_text(service: Service) -> str:
    """Write a service the way people say it: `tcp 443`, `icmp 8/0`, `protocol 50`, `all`."""
    match service:
        case Ports(protocol, first, last):
            return f"{protocol} {range_text(first, last)}"
        case Icmp(protocol, kind, code):
            if code != -1:
                return f"{protocol} {kind}/{code}"
            return protocol if kind == -1 else f"{protocol} {kind}"
        case Protocol(number):
            return f"protocol {number}"
        case Everything():
            return "all"


def range_text(first: int, last: int) -> str:
    """Write a range of ports for people."""
    if (first, last) == (0, LAST_PORT):
        return "all ports"
    return str(first) if first == last else f"{first}-{last}"
