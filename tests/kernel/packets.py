"""Packets of any kind and source for a host's INPUT chain, and the verdict on each.

    Wire                   a host in a namespace of its own, with a cable to another namespace
    Wire.probe(packets)    sends raw Ethernet frames and tells which of them passed INPUT

How it knows:

* The kernel hands a packet to raw sockets of its protocol just after INPUT
  (ip_local_deliver_finish, ip6_protocol_deliver_rcu), so these see exactly what was accepted,
  whether or not anything listens.
* Every packet ends in a number of its own, by which it is recognised.
* Frames that one thread sends on one CPU stay in order. A last frame of a private EtherType
  that arrives says that the kernel is done with all before it: nothing waits for time to pass.

Connection tracking must see each packet as new:

* Source ports and ICMP identifiers come round only after 60,000 packets.
* `Wire.forget` empties the table of connections; other protocols have no ports to tell one
  packet from the next, and a packet that went the other way before would make this one a reply.

Not to be had by frames: packets out of IPsec (`from_ipsec`), which take keys, and those over
loopback. IPv6 extension headers (0, 43, 44, 59, 60, 135) are no protocols and cannot be told.
"""

import os
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address
from itertools import count
from subprocess import CompletedProcess

from reyes.demo.namespaces import Closing, Namespace
from reyes.net import Address
from reyes.netfilter.evaluate import Packet

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58

_BATCH = 256  # well below net.core.netdev_max_backlog and a receive buffer's default limit
_SECONDS = 10  # frames take no longer
_BARRIER = 0x88B5  # IEEE 802, local experimental EtherType 1
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_HOST_MAC, _NEIGHBOUR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
_ETHERNET = bytes.fromhex((_HOST_MAC + _NEIGHBOUR_MAC).replace(":", ""))
_HIGHEST_NUMBER = 2**32
_STRANGERS = {4: "192.0.2.253", 6: "2001:db8:ffff::fd"}

# linux/netlink.h, linux/netfilter/nfnetlink_conntrack.h: NETLINK_NETFILTER, IPCTNL_MSG_CT_DELETE
# of NFNL_SUBSYS_CTNETLINK, NLM_F_REQUEST | NLM_F_ACK.
_NETFILTER = 12
_DELETE_CONNECTIONS = 1 << 8 | 2
_REQUEST_AND_ANSWER = 1 | 4


class Wire(Closing):
    """A host with the given addresses, reachable from a neighbour that may claim any source.

    `host` is where rules go, and `neighbour` the far end of each cable, for what frames cannot do.
    Needs CAP_SYS_ADMIN, as all making of namespaces does.
    """

    def __init__(self, addresses: Sequence[str], interfaces: Sequence[str] = ("eth0",)) -> None:
        self.addresses: set[Address] = set()
        self._first = interfaces[0]
        self._numbers = count(1)
        self.host = Namespace()
        self.neighbour = Namespace()
        for interface in interfaces:
            self._lay(interface)
        self.host.ip(
            f"route add default via 192.0.2.254 dev {self._first} onlink",
            f"neighbour replace 192.0.2.254 lladdr {_NEIGHBOUR_MAC} dev {self._first}",
            f"route add default via fe80::fe dev {self._first} onlink",
            f"neighbour replace fe80::fe lladdr {_NEIGHBOUR_MAC} dev {self._first}",
        )
        self._senders = {name: self.neighbour.call(_frame_socket, name) for name in interfaces}
        self._barriers = {
            name: self.host.call(_frame_socket, name, _BARRIER) for name in interfaces
        }
        self._receivers: dict[tuple[int, int], socket.socket] = {}
        self.take({ip_address(address) for address in addresses})
        self._wait_for_the_cable()

    def _wait_for_the_cable(self) -> None:
        """Wait until frames arrive: a link that was just set up drops some, of IPv6 for longer."""
        first = {address.version: address for address in self.addresses}
        hello = [
            Packet(
                source=ip_address(_STRANGERS[version]),
                destination=address,
                protocol=UDP,
                port=9,
                interface=self._first,
            )
            for version, address in first.items()
        ]
        end = time.monotonic() + _SECONDS
        while not self._arrive(hello):
            if time.monotonic() > end:
                raise OSError(f"nothing arrives at {', '.join(map(str, first.values()))}")
            time.sleep(0.01)

    def _arrive(self, packets: Sequence[Packet]) -> bool:
        for barrier in self._barriers.values():
            barrier.settimeout(_SECONDS / 10)
        try:
            return all(self.probe(packets))
        except TimeoutError:
            return False
        finally:
            for barrier in self._barriers.values():
                barrier.settimeout(_SECONDS)

    def take(self, addresses: set[Address]) -> None:
        """Give the host these addresses instead of those that it has."""
        self.host.ip(
            *(f"address delete {one} dev {self._first}" for one in self.addresses - addresses),
            *(f"address add {one} dev {self._first} nodad" for one in addresses - self.addresses),
        )
        self.addresses = set(addresses)

    def forget(self) -> None:
        """Empty the host's table of connections, as `conntrack -F` does."""
        request = struct.pack("=IHHII4x", 20, _DELETE_CONNECTIONS, _REQUEST_AND_ANSWER, 1, 0)
        with self.host.call(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as link:
            link.send(request)
            failure = struct.unpack_from("=i", link.recv(4096), 16)[0]
        if failure:
            raise OSError(-failure, f"cannot forget connections: {os.strerror(-failure)}")

    def probe(self, packets: Sequence[Packet]) -> list[bool]:
        """Send packets and tell for each whether it passed INPUT."""
        numbered = [(next(self._numbers) % _HIGHEST_NUMBER, packet) for packet in packets]
        for _, packet in numbered:
            self._listen(packet)
        passed: set[int] = set()
        for start in range(0, len(numbered), _BATCH):
            last = next(self._numbers) % _HIGHEST_NUMBER
            self.neighbour.call(self._send, numbered[start : start + _BATCH], last)
            passed.update(self._collect(last))
        return [number in passed for number, _ in numbered]

    def run(self, argv: Sequence[str], input: str | None = None) -> CompletedProcess[str]:  # noqa: A002 - as subprocess.run calls it
        """Run a command on the host that must succeed."""
        done: CompletedProcess[str] = self.host.call(
            partial(subprocess.run, argv, input=input, capture_output=True, check=False, text=True)
        )
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done

    def close(self) -> None:
        """Give the sockets and both namespaces back."""
        for opened in (self._senders, self._barriers, self._receivers):
            for one in opened.values():
                one.close()
        self.host.close()
        self.neighbour.close()

    def _lay(self, interface: str) -> None:
        self.neighbour.connect(interface, self.host, interface)
        # Nobody there may answer: only frames made here are on the cable.
        self.neighbour.sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", 1)
        self.neighbour.ip(f"link set {interface} address {_NEIGHBOUR_MAC} up")
        self.host.ip(f"link set {interface} address {_HOST_MAC} up")
        for scope in ("all", interface):
            self.host.sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)

    def _listen(self, packet: Packet) -> None:
        if packet.destination not in self.addresses:
            raise ValueError(
                f"{packet.destination} is no address of the host, INPUT never sees it"
            )
        family = socket.AF_INET if packet.destination.version == 4 else socket.AF_INET6
        if (family, packet.protocol) not in self._receivers:
            self._receivers[family, packet.protocol] = self.host.call(
                _raw_socket, family, packet.protocol
            )

    def _send(self, numbered: Sequence[tuple[int, Packet]], last: int) -> None:
        """Send frames and the last one after them; ordered, since all leave from one CPU."""
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            for number, packet in numbered:
                self._senders[packet.interface].send(_frame(packet, number))
            for sender in self._senders.values():
                sender.send(_ETHERNET + struct.pack("!HI", _BARRIER, last))
        finally:
            os.sched_setaffinity(0, allowed)

    def _collect(self, last: int) -> set[int]:
        for barrier in self._barriers.values():
            while int.from_bytes(barrier.recv(64)[-4:]) != last:
                pass  # of a probe that was given up
        passed: set[int] = set()
        for receiver in self._receivers.values():
            passed.update(_numbers_in(receiver))
        return passed


def _numbers_in(receiver: socket.socket) -> set[int]:
    numbers: set[int] = set()
    while True:
        try:
            received = receiver.recv(2048)
        except BlockingIOError:
            return numbers
        numbers.add(int.from_bytes(received[-4:]))


def _frame_socket(interface: str, ethertype: int = 0) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
    opened.bind((interface, ethertype))
    opened.settimeout(_SECONDS)
    return opened


def _raw_socket(family: int, protocol: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_RAW, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
    opened.setblocking(False)
    return opened


def _frame(packet: Packet, number: int) -> bytes:
    source, destination = packet.source.packed, packet.destination.packed
    body = _body(packet, number, source + destination)
    if packet.source.version == 4:
        header = struct.pack(
            "!BBHHHBBH", 0x45, 0, 20 + len(body), number & 0xFFFF, 0, 64, packet.protocol, 0
        )
        header = header[:10] + _checksum(header + source + destination)
        return b"".join((_ETHERNET, _IPV4, header, source, destination, body))
    # Hop limit 255: neighbour discovery with any other is not genuine (RFC 4861, 6.1).
    header = struct.pack("!IHBB", 6 << 28, len(body), packet.protocol, 255)
    return b"".join((_ETHERNET, _IPV6, header, source, destination, body))


def _body(packet: Packet, number: int, addresses: bytes) -> bytes:
    """Make what follows the IP header: checksums right, the number last."""
    unique = 1024 + number % 60_000
    mark = struct.pack("!I", number)
    if packet.protocol == TCP:
        ports = struct.pack("!HH", unique, packet.port or 0)
        syn = struct.pack("!IIBBH", number, 0, 5 << 4, 0x02, 65_535)
        before, after = ports + syn, b"\0\0" + mark
    elif packet.protocol == UDP:
        before = struct.pack("!HHH", unique, packet.port or 0, 8 + len(mark))
        after = mark
    elif packet.protocol in (ICMP, ICMPV6):
        before = bytes(packet.icmp or (0, 0))
        after = struct.pack("!HH", unique, 0) + mark
    else:
        # What has ports has one that is not 0.
        return struct.pack("!HHI", 0, 7, 0) + mark
    pseudo = b""
    if packet.protocol != ICMP:
        length = len(before) + 2 + len(after)
        pseudo = addresses + struct.pack("!II", length, packet.protocol)
    return before + _checksum(pseudo + before + b"\0\0" + after) + after


def _checksum(content: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071): the sum modulo 65535, complemented."""
    remainder = int.from_bytes(content) % 0xFFFF
    return (0xFFFF - remainder).to_bytes(2)
