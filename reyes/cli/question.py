"""The packet that a command line asks about."""

from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path

import click
from msgspec import Struct

from reyes.host import Host, InterfaceScope, IpsecScope
from reyes.net import PROTOCOL_NUMBERS, Address, Family, family_of, parse_address
from reyes.netfilter.evaluate import Packet
from reyes.policy import HostPolicy

_ECHO_REQUEST = {"icmp": (8, 0), "icmpv6": (128, 0)}


class Question(Struct, frozen=True, kw_only=True):
    """What the command line asks."""

    source: str | None
    destination: str | None
    proto: str | None
    port: int | None
    icmp: str | None
    instance: str | None
    group: str | None
    interface: str | None
    ipsec: bool | None
    ruleset: Path | None
    unverified: bool
    as_json: bool


PacketTo = Callable[[HostPolicy], Packet]
"""Makes the packet, with what was not said from the host that it goes to."""


def asked_packet(asked: Question) -> PacketTo:
    """Read what is said of the packet, before anybody is asked; UsageError if it is none."""
    source = _address("--from", asked.source or "")
    said = _address("--to", asked.destination) if asked.destination else None
    if said and family_of(source) is not family_of(said):
        raise click.UsageError(f"--from {source} and --to {said} are not of one family")
    protocol = _protocol(asked, family_of(source))
    port, icmp = _port(asked, protocol), _icmp(asked, protocol)

    def to(policy: HostPolicy) -> Packet:
        by_ipsec = isinstance(policy.host.scope, IpsecScope)
        return Packet(
            source=source,
            destination=said or _own_address(policy, family_of(source)),
            protocol=protocol,
            port=port,
            icmp=icmp,
            interface=asked.interface or _interface(policy.host),
            from_ipsec=by_ipsec if asked.ipsec is None else asked.ipsec,
        )

    return to


def _address(option: str, text: str) -> Address:
    try:
        address = parse_address(text)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error
    # Programs with a socket for both families write the senders of IPv4 like that.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _own_address(policy: HostPolicy, family: Family) -> Address:
    """Return the host's first address of a family; the unspecified one if it has none."""
    for interface in policy.interfaces:
        for network in interface.addresses:
            if family_of(network) is family:
                return network.network_address
    return family.everywhere.network_address


def _interface(host: Host) -> str:
    """Return where packets arrive if nobody says so: on the first interface that is judged."""
    if isinstance(host.scope, InterfaceScope):
        return host.scope.names[0].removesuffix("+")
    return "eth0"


def _protocol(asked: Question, family: Family) -> int:
    if asked.proto is None and asked.port is None:
        raise click.UsageError("say --proto NAME, and --port for tcp and udp")
    name = (asked.proto or "tcp").lower()
    if name in ("icmp", "icmpv6") and (name == "icmp") is not (family is Family.V4):
        raise click.UsageError(f"--proto {name} does not exist in IPv{family.value}")
    if name in PROTOCOL_NUMBERS:
        return PROTOCOL_NUMBERS[name]
    if not name.isdecimal() or not 0 < int(name) <= 255:  # noqa: PLR2004 - IANA's last number
        raise click.UsageError(
            f"--proto: expected tcp, udp, icmp, icmpv6 or a number from 1 to 255, got {name!r}"
        )
    return int(name)


def _port(asked: Question, protocol: int) -> int | None:
    has_ports = protocol in (PROTOCOL_NUMBERS["tcp"], PROTOCOL_NUMBERS["udp"])
    if has_ports and asked.port is None:
        raise click.UsageError("--port: tcp and udp need one")
    if not has_ports and asked.port is not None:
        raise click.UsageError("--port: only tcp and udp have ports")
    return asked.port


def _icmp(asked: Question, protocol: int) -> tuple[int, int] | None:
    name = next((n for n in _ECHO_REQUEST if PROTOCOL_NUMBERS[n] == protocol), None)
    if name is None:
        if asked.icmp:
            raise click.UsageError("--icmp: only icmp and icmpv6 have types")
        return None
    if not asked.icmp:
        return _ECHO_REQUEST[name]
    numbers = asked.icmp.split("/")
    if len(numbers) > 2 or not all(n.isdecimal() and int(n) <= 255 for n in numbers):  # noqa: PLR2004 - type and code, of a byte each
        raise click.UsageError(f"--icmp: expected TYPE or TYPE/CODE, got {asked.icmp!r}")
    kind, code = (*map(int, numbers), 0)[:2]
    return kind, code
