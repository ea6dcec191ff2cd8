"""Entries of sets: as we write them, and as ipset shows them.

A set of sources (`hash:net`) holds canonical networks. One of sources and services
(`hash:net,port`) holds `network,protocol:port`, where the port of ICMP is `type/code`, and that of
a protocol without ports is 0. It has no ranges, so any code is 256 entries.

A set of sources and ports (`hash:net` with counters) holds `network packets FIRST bytes BEHIND`:
the first of the ports that a network may use without a gap, its reach, and how many ports there
are behind the last. ipset keeps two numbers beside an entry, its counters, which a rule can
compare with its own. Nothing counts in our sets; if a rule of somebody else ever did, both would
grow, which only narrows the reach.

Protocols are written as numbers, which the host need not know: it is asked for each name.
"""

import re
from collections.abc import Iterable

from reyes.net import (
    LAST_PORT,
    PROTOCOL_NUMBERS,
    Family,
    Icmp,
    Protocol,
    Service,
    canonical,
    parse_network,
    protocol_number,
    range_text,
)

_HALVES = {"0.0.0.0/0": ("0.0.0.0/1", "128.0.0.0/1"), "::/0": ("8000::/1", "::/1")}
"""What holds every address, where /0 is refused: in all sets."""

_BY_NUMBER_ALONE = frozenset(range(1, 143)) - {1, 6, 17, 58, 132, 136}
"""Protocols that a set can hold by their number. Of the six ipset compares a port or type, too
(ip_set_getport.c of the kernel); above 142 hosts have no names, and before 7.13 ipset takes no
number without one."""

EVERY_CODE = 256
"""The codes of a type of ICMP: an entry each."""

_REACH = re.compile(r"\S+ packets \d+ bytes \d+")

_ICMP, _ICMPV6 = PROTOCOL_NUMBERS["icmp"], PROTOCOL_NUMBERS["icmpv6"]

_ICMP_NAMES = {
    _ICMP: {
        "echo-reply": "0/0",
        "network-unreachable": "3/0",
        "host-unreachable": "3/1",
        "protocol-unreachable": "3/2",
        "port-unreachable": "3/3",
        "fragmentation-needed": "3/4",
        "source-route-failed": "3/5",
        "network-unknown": "3/6",
        "host-unknown": "3/7",
        "network-prohibited": "3/9",
        "host-prohibited": "3/10",
        "TOS-network-unreachable": "3/11",
        "TOS-host-unreachable": "3/12",
        "communication-prohibited": "3/13",
        "host-precedence-violation": "3/14",
        "precedence-cutoff": "3/15",
        "source-quench": "4/0",
        "network-redirect": "5/0",
        "host-redirect": "5/1",
        "TOS-network-redirect": "5/2",
        "TOS-host-redirect": "5/3",
        "echo-request": "8/0",
        "router-advertisement": "9/0",
        "router-solicitation": "10/0",
        "ttl-zero-during-transit": "11/0",
        "ttl-zero-during-reassembly": "11/1",
        "ip-header-bad": "12/0",
        "required-option-missing": "12/1",
        "timestamp-request": "13/0",
        "timestamp-reply": "14/0",
        "address-mask-request": "17/0",
        "address-mask-reply": "18/0",
    },
    _ICMPV6: {
        "no-route": "1/0",
        "communication-prohibited": "1/1",
        "address-unreachable": "1/3",
        "port-unreachable": "1/4",
        "packet-too-big": "2/0",
        "ttl-zero-during-transit": "3/0",
        "ttl-zero-during-reassembly": "3/1",
        "bad-header": "4/0",
        "unknown-header-type": "4/1",
        "unknown-option": "4/2",
        "echo-request": "128/0",
        "echo-reply": "129/0",
        "router-solicitation": "133/0",
        "router-advertisement": "134/0",
        "neighbour-solicitation": "135/0",
        "neighbour-advertisement": "136/0",
        "redirect": "137/0",
    },
}
"""Words of ipset for a type and a code (lib/icmp.c and lib/icmpv6.c of ipset)."""


def with_reach(network: str, first: int, last: int) -> str:
    """Write the entry of a network that may use these ports."""
    return f"{network} packets {first} bytes {LAST_PORT - last}"


def reach_options(first: int, last: int) -> str:
    """Write how a rule asks for an entry whose reach holds all of these ports."""
    return f"! --update-counters --packets-lt {first + 1} --bytes-lt {LAST_PORT - last + 1}"


def network_and_rest(entry: str) -> tuple[str, str]:
    """Part the network of an entry from what stands beside it: a service, a reach or nothing."""
    network, _, rest = entry.replace(",", " ", 1).partition(" ")
    return network, rest


def reach_of(rest: str) -> tuple[int, int]:
    """Return the first and the last port of what stands beside a network."""
    _, first, _, behind = rest.split(" ")
    return int(first), LAST_PORT - int(behind)


def in_words(entry: str) -> str:
    """Write a reach as its ports, for people; any other entry stays as it is."""
    if not _REACH.fullmatch(entry):
        return entry
    network, rest = network_and_rest(entry)
    return f"{network} to {range_text(*reach_of(rest))}"


def without_everywhere(networks: Iterable[str]) -> set[str]:
    """Split /0, which no set takes, in two."""
    found = set(networks)
    for everywhere, halves in _HALVES.items():
        if everywhere in found:
            found.remove(everywhere)
            found.update(halves)
    return found


def service_ports(service: Service, family: Family) -> tuple[str, ...]:
    """Return `protocol:port` for all that a service is in a set; nothing if a set cannot tell.

    It tells no protocols of IPv6, where ipset looks behind an authentication header and nft does
    not.
    """
    match service:
        case Icmp(protocol, kind, code) if kind != -1:
            codes = range(EVERY_CODE) if code == -1 else (code,)
            return tuple(f"{PROTOCOL_NUMBERS[protocol]}:{kind}/{one}" for one in codes)
        case Protocol(number) if family is Family.V4 and number in _BY_NUMBER_ALONE:
            return (f"{number}:0",)
        case _:
            return ()


def packet_port(protocol: int, icmp: tuple[int, int] | None) -> str:
    """Return the `protocol:port` that a packet is looked up by; `icmp` is its type and code.

    Packets that have ports are looked up by these, and by no entry of ours.
    """
    return f"{protocol}:{icmp[0]}/{icmp[1]}" if icmp else f"{protocol}:0"


def as_written(shown: str) -> str:
    """Return an entry that ipset shows as we write it; what is none of ours stays as it is.

    It shows `::102:304` as `::1.2.3.4`, and protocols and ICMP by name. ValueError if a network
    that must be written anew is none.
    """
    network, comma, service = shown.partition(",")
    if "." in network and ":" in network:
        network = canonical(parse_network(network))
    if not comma:
        return network
    name, _, port = service.partition(":")
    number = protocol_number(name)
    if number is None:
        return f"{network},{service}"
    return f"{network},{number}:{_ICMP_NAMES.get(number, {}).get(port, port)}"
