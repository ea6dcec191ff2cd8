"""The kernel as a third reading: worlds put in force by the follower's own code, real packets.

One host takes one world after the other, so that every commit starts from the rules of another.

Packets that never reach INPUT, or cannot be told when they do, are left out:

* from loopback, multicast, broadcast, unspecified addresses or the host's own: the routing code
  drops such as martians before INPUT (ip_route_input_slow, ip6_rcv_core);
* over loopback and out of IPsec, of IPv6 extension headers: `packets` tells why;
* of IPv4 protocol 0: there is no raw socket for it.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from reyes.adapters.kernel import Kernel
from reyes.adapters.programs import find_program
from reyes.demo.namespaces import Closing
from reyes.net import Address
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.evaluate import Packet
from reyes.netfilter.plan import FilterTable, plan_commit
from tests.kernel.packets import Wire
from tests.oracle import Verdict
from tests.proving import Difference, compiled
from tests.strategies_worlds import ARRIVALS, World

Backend = Literal["nft", "legacy"]
BACKENDS: tuple[Backend, ...] = ("nft", "legacy")

EXTENSION_HEADERS = {0, 43, 44, 51, 59, 60, 135, 139, 140}
_THIS_NETWORK = ip_network("0.0.0.0/8")
_BROADCAST = IPv4Address("255.255.255.255")


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Make one of iptables' backends the one that PATH leads to."""
    before = os.environ.get("PATH", os.defpath)
    with tempfile.TemporaryDirectory() as directory:
        for command in ("iptables", "ip6tables"):
            for tool in ("save", "restore"):
                target = find_program(f"{command}-{name}-{tool}")
                assert target, f"{command}-{name}-{tool} is not installed"
                Path(directory, f"{command}-{tool}").symlink_to(target)
        os.environ["PATH"] = f"{directory}:{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before


def commit(dataplane: Dataplane, filter_table: FilterTable) -> None:
    """Put a dataplane in force where the calling thread is, as a follower does."""
    kernel = Kernel()
    kernel.execute(plan_commit(dataplane, kernel.read(), filter_table))


class Judge(Closing):
    """A host in a namespace of its own that applies worlds."""

    def __init__(self) -> None:
        self._wire = Wire([], ARRIVALS)

    def differences(
        self, world: World, expected: Iterable[tuple[Packet, Verdict]]
    ) -> Iterator[Difference]:
        """Apply a world and send the packets; `expected` are the oracle's verdicts."""
        expected = list(expected)
        self._wire.take({packet.destination for packet, _ in expected})
        self._wire.host.call(commit, compiled(world), world.config.filter_table)
        self._wire.forget()
        passed = self._wire.probe([packet for packet, _ in expected])
        for (packet, by_oracle), was_passed in zip(expected, passed, strict=True):
            stopped = by_oracle == "denied" and world.config.enforce
            if was_passed is stopped:
                found = "passed" if was_passed else "stopped"
                yield Difference(world, packet, by_oracle, f"kernel: {found}")

    def close(self) -> None:
        self._wire.close()


def sendable(packets: Iterable[Packet]) -> list[Packet]:
    """Choose the packets that a wire can carry to INPUT, in clear."""
    clear = [replace(packet, from_ipsec=False) for packet in packets]
    own = {packet.destination for packet in clear}
    return [p for p in clear if p.interface in ARRIVALS and _can_be_told(p, own)]


def _can_be_told(packet: Packet, own: set[Address]) -> bool:
    source = packet.source
    if source in own or source.is_loopback or source.is_multicast or source.is_unspecified:
        return False
    if source.version == 4:
        return packet.protocol != 0 and source not in _THIS_NETWORK and source != _BROADCAST
    return packet.protocol not in EXTENSION_HEADERS
