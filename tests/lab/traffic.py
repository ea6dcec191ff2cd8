"""Real packets: TCP connections between the machines, and what of them is on a cable."""

import selectors
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network

from reyes.demo.namespaces import Namespace
from tests.lab.places import FAR_NETWORKS, PORTS, WEST_NETWORKS

PATIENCE_SECONDS = 5
"""How long an answer or a drop may take on a busy machine."""

_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_ESP, _GRE = 50, 47
_SO_RCVBUFFORCE = 33
_PRIVATE = [ip_network(network) for network in (*WEST_NETWORKS, *FAR_NETWORKS)]


@dataclass(frozen=True, slots=True)
class Probe:
    """A connection to try, from an address of a machine."""

    machine: Namespace
    source: str
    destination: str
    port: int
    passes: bool


class Servers:
    """On some machines, a server on every port: it tells the caller who he is."""

    def __init__(self, machines: Sequence[Namespace]) -> None:
        self._selector = selectors.DefaultSelector()
        for machine in machines:
            for port in PORTS:
                listener = machine.call(
                    socket.create_server, ("::", port), family=socket.AF_INET6, dualstack_ipv6=True
                )
                self._selector.register(listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """Answer whoever is waiting."""
        for key, _ in self._selector.select(timeout=0.01):
            listener = key.fileobj
            assert isinstance(listener, socket.socket)
            connection, peer = listener.accept()
            with connection:
                connection.sendall(peer[0].removeprefix("::ffff:").encode())


def drops(machine: Namespace) -> int:
    """Count the packets that Reyes has dropped on a machine, of both families."""
    total = 0
    for command in ("iptables-save", "ip6tables-save"):
        for line in machine.run([command, "-c", "-t", "filter"]).stdout.splitlines():
            if " -A reyes-drop " in line and line.endswith("-j DROP"):
                total += int(line[1:].partition(":")[0])
    return total


class Outcome(Enum):
    """What became of a probe."""

    PASSED = "passes"
    DROPPED = "dropped"
    UNANSWERED = "no answer"


def try_all(servers: Servers, judge: Namespace, probes: Sequence[Probe]) -> dict[Probe, Outcome]:
    """Send all probes and wait until each is answered, or counted among the drops of `judge`.

    That is asked only once all others have their answers: so a repeated SYN cannot stand for a
    probe that is still on its way.
    """
    before = drops(judge)
    callers = {probe: _Caller(probe) for probe in probes}
    expected = {probe for probe in probes if probe.passes}
    answered: set[Probe] = set()
    unanswered = Outcome.UNANSWERED
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        servers.serve()
        answered = {probe for probe, caller in callers.items() if caller.answered()}
        if answered == expected and drops(judge) - before >= len(probes) - len(answered):
            unanswered = Outcome.DROPPED
            break
    for caller in callers.values():
        caller.close()
    return {probe: Outcome.PASSED if probe in answered else unanswered for probe in probes}


class _Caller:
    def __init__(self, probe: Probe) -> None:
        self._source = probe.source
        self._reply = b""
        family = socket.AF_INET6 if ":" in probe.source else socket.AF_INET
        self._socket = probe.machine.call(socket.socket, family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.bind((probe.source, 0))
        self._socket.connect_ex((probe.destination, probe.port))

    def answered(self) -> bool:
        with suppress(OSError):  # not yet connected, nothing there yet, or refused
            self._reply += self._socket.recv(100)
        return self._reply.decode() == self._source

    def close(self) -> None:
        self._socket.close()


class Cable:
    """Sees every IP packet on an interface, in either direction."""

    def __init__(self, machine: Namespace, interface: str) -> None:
        # SOCK_DGRAM: without the Ethernet header.
        self._socket = machine.call(
            socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)
        )
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 2**22)
        self._socket.setblocking(False)

    def seen(self) -> Counter[str]:
        """Count by kind what was on the cable since the last call."""
        kinds: Counter[str] = Counter()
        while True:
            try:
                packet, (_, ethertype, *_) = self._socket.recvfrom(2048)
            except BlockingIOError:
                return kinds
            kinds[_kind(packet, ethertype)] += 1


def _kind(packet: bytes, ethertype: int) -> str:
    if ethertype == _ETH_P_IP:
        protocol, source, destination = packet[9], packet[12:16], packet[16:20]
    elif ethertype == _ETH_P_IPV6:
        protocol, source, destination = packet[6], packet[8:24], packet[24:40]
    else:
        return "other"
    if all(_is_private(address) for address in (source, destination)):
        return "clear"
    return {_ESP: "esp", _GRE: "gre"}.get(protocol, "other")


def _is_private(address: bytes) -> bool:
    return any(ip_address(address) in network for network in _PRIVATE)
