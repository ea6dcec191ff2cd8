"""Connections, with real sockets: which live, which are refused, and that paths are learnt.

host (10.2.0.10) -- router -- far (10.1.0.10, 10.1.0.66), the last link with a smaller MTU
"""

import errno
import hashlib
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Condition

import pytest

from reyes.demo.namespaces import Namespace
from reyes.host import Host, VpcScope
from reyes.net import parse_network
from reyes.netfilter.compiler import compile_policy
from reyes.netfilter.evaluate import Packet
from reyes.policy import resolve
from reyes.ruleset import Content, Region
from tests.kernel.judge import BACKENDS, backend, commit
from tests.oracle import verdict
from tests.worlds import EU_VPC, WEST_VPC, allow, group, interface, tcp, udp, verified, vpc, world

pytestmark = pytest.mark.kernel

APP, CLIENTS = "sg-0000000a", "sg-0000000b"
INSTANCE = "i-0000000a"
PORT = 5000
SMALL_MTU = 1400
PATIENCE = 30.0


@dataclass(frozen=True)
class Ends:
    """One family's addresses."""

    host: str
    router: str
    client: str
    stranger: str

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


V4 = Ends("10.2.0.10", "10.1.255.254", "10.1.0.10", "10.1.0.66")
V6 = Ends("fd00:2::10", "fd00:1:ffff::1", "fd00:1::10", "fd00:1::66")
FAMILIES = pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])

HOST = Host(
    instance_id=INSTANCE,
    region="us-west-2",
    scope=VpcScope((parse_network("10.0.0.0/8"), parse_network("fd00::/16"))),
    denied="reject",  # so that a refusal is told at once
)


def clients(*addresses: str) -> Content:
    """The host's port is open to a group, and these are its members."""
    members = interface("0000000b", " ".join(sorted(addresses)), CLIENTS, vpc=EU_VPC)
    return world(
        Region(
            name="us-west-2",
            vpcs=(vpc(WEST_VPC, "10.2.0.0/16", "fd00:2::/64"), vpc(EU_VPC, "10.1.0.0/16")),
            groups=(
                group(APP, "app", allow(tcp(PORT), CLIENTS), allow(udp(PORT), CLIENTS)),
                group(CLIENTS, "clients", vpc=EU_VPC),
            ),
            interfaces=(
                interface("0000000a", f"{V4.host} {V6.host}", APP, INSTANCE),
                members,
            ),
        )
    )


class Path:
    """The three namespaces, cabled and routed."""

    def __init__(self) -> None:
        self.host, self.router, self.far = (Namespace() for _ in range(3))
        for namespace in (self.host, self.router, self.far):
            namespace.sysctl("net/ipv6/conf/default/accept_dad", 0)
        self.host.connect("eth0", self.router, "south")
        self.far.connect("eth0", self.router, "north")
        self.router.sysctl("net/ipv4/ip_forward", 1)
        self.router.sysctl("net/ipv6/conf/all/forwarding", 1)
        self.router.ip(
            "link set south up",
            f"link set north mtu {SMALL_MTU} up",
            *(
                f"address add {ends.router} dev {i}"
                for ends in (V4, V6)
                for i in ("south", "north")
            ),
            f"route add {V4.host} dev south",
            f"route add {V6.host} dev south",
            "route add 10.1.0.0/24 dev north",
            "route add fd00:1::/64 dev north",
        )
        for namespace, mtu, addresses in (
            (self.host, 1500, (V4.host, V6.host)),
            (self.far, SMALL_MTU, (V4.client, V4.stranger, V6.client, V6.stranger)),
        ):
            namespace.ip(
                f"link set eth0 mtu {mtu} up",
                *(f"address add {address} dev eth0 nodad" for address in addresses),
                f"route add default via {V4.router} dev eth0 onlink",
                f"route add default via {V6.router} dev eth0 onlink",
            )

    def apply(self, content: Content) -> None:
        dataplane = compile_policy(resolve(verified(content), HOST))
        self.host.call(commit, dataplane, "shared")

    def listen(self, namespace: Namespace, address: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return namespace.call(socket.create_server, (address, PORT), family=family)

    def connect(self, namespace: Namespace, source: str, target: str) -> socket.socket:
        return namespace.call(
            socket.create_connection, (target, PORT), timeout=PATIENCE, source_address=(source, 0)
        )

    def close(self) -> None:
        for namespace in (self.host, self.router, self.far):
            namespace.close()


@pytest.fixture(params=BACKENDS)
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    with backend(request.param):
        opened = Path()
        yield opened
        opened.close()


def exchange(one: socket.socket, other: socket.socket) -> None:
    """Say something each way."""
    for speaker, listener in ((one, other), (other, one)):
        listener.settimeout(PATIENCE)
        speaker.sendall(b"word")
        assert listener.recv(16) == b"word"


@FAMILIES
def test_replies_flow_to_a_host_that_lets_nobody_in(path: Path, ends: Ends) -> None:
    path.apply(clients())
    with (
        path.listen(path.far, ends.client) as server,
        path.connect(path.host, ends.host, ends.client) as outgoing,
        server.accept()[0] as accepted,
    ):
        exchange(outgoing, accepted)


@FAMILIES
def test_udp_replies_flow_as_well(path: Path, ends: Ends) -> None:
    path.apply(clients())
    with (
        path.far.call(socket.socket, ends.family, socket.SOCK_DGRAM) as server,
        path.host.call(socket.socket, ends.family, socket.SOCK_DGRAM) as asking,
    ):
        server.bind((ends.client, PORT))
        asking.connect((ends.client, PORT))
        asking.send(b"question")
        server.settimeout(PATIENCE)
        question, whose = server.recvfrom(16)
        server.sendto(question + b"?", whose)
        asking.settimeout(PATIENCE)
        assert asking.recv(16) == b"question?"


def test_a_host_may_always_talk_to_itself(path: Path) -> None:
    path.apply(clients())
    for address in ("127.0.0.1", V4.host, V6.host):
        with (
            path.listen(path.host, address) as server,
            path.connect(path.host, address, address) as outgoing,
            server.accept()[0] as accepted,
        ):
            exchange(outgoing, accepted)


@FAMILIES
def test_a_removed_member_is_refused_but_its_connection_lives_on(path: Path, ends: Ends) -> None:
    path.apply(clients(ends.client, ends.stranger))
    with path.listen(path.host, ends.host) as server:
        with (
            path.connect(path.far, ends.client, ends.host) as old,
            server.accept()[0] as accepted,
        ):
            exchange(old, accepted)
            path.apply(clients(ends.stranger))
            with pytest.raises(OSError, match=r"No route to host|Permission denied"):
                path.connect(path.far, ends.client, ends.host)
            exchange(old, accepted)
        with (
            path.connect(path.far, ends.stranger, ends.host) as still,
            server.accept()[0] as accepted,
        ):
            exchange(still, accepted)


@FAMILIES
def test_the_small_mtu_of_a_far_link_is_learnt(path: Path, ends: Ends) -> None:
    """The router is nobody's member: what it says of the path is let in all the same."""
    content = clients()
    path.apply(content)
    echo = Packet(
        source=ip_address(ends.router),
        destination=ip_address(ends.host),
        protocol=1 if ends is V4 else 58,
        icmp=(8, 0) if ends is V4 else (128, 0),
    )
    assert verdict(content, HOST, echo) == "denied"
    level, discover, mtu = (
        (socket.IPPROTO_IP, 10, 14) if ends is V4 else (socket.IPPROTO_IPV6, 23, 24)
    )  # IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU of linux/in.h and in6.h
    with path.host.call(socket.socket, ends.family, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(level, discover, 2)
        sender.connect((ends.client, PORT))
        sender.send(bytes(SMALL_MTU))
        failure = select.poll()
        failure.register(sender, select.POLLERR)
        assert failure.poll(PATIENCE * 1000)
        assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
        assert sender.getsockopt(level, mtu) == SMALL_MTU


class Transfer:
    """A stream through a connection and back, which goes on until it is told to end."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._near, self._far = near, far
        self._progress = Condition()
        self._received = 0
        self._ending = False
        self._threads = ThreadPoolExecutor(3)
        self._sent = self._threads.submit(self._send)
        self._back = self._threads.submit(self._receive)
        self._echoed = self._threads.submit(self._echo)

    def wait_for_more(self) -> None:
        """Wait until something that was sent from now on has come back."""
        with self._progress:
            goal = self._received + 2**20
            assert self._progress.wait_for(lambda: self._received >= goal, PATIENCE)

    def end(self) -> tuple[str, str]:
        """Return the digests of what was sent and of what came back."""
        self._ending = True
        self._echoed.result(PATIENCE)
        digests = self._sent.result(PATIENCE), self._back.result(PATIENCE)
        self._threads.shutdown()
        return digests

    def _send(self) -> str:
        digest = hashlib.sha256()
        block = bytes(range(256)) * 64
        while not self._ending:
            self._far.sendall(block)
            digest.update(block)
        self._far.shutdown(socket.SHUT_WR)
        return digest.hexdigest()

    def _echo(self) -> None:
        while block := self._near.recv(2**16):
            self._near.sendall(block)
        self._near.shutdown(socket.SHUT_WR)

    def _receive(self) -> str:
        digest = hashlib.sha256()
        while block := self._far.recv(2**16):
            digest.update(block)
            with self._progress:
                self._received += len(block)
                self._progress.notify()
        return digest.hexdigest()


@FAMILIES
def test_a_transfer_survives_commits_in_a_loop(path: Path, ends: Ends) -> None:
    path.apply(clients(ends.client))
    with (
        path.listen(path.host, ends.host) as server,
        path.connect(path.far, ends.client, ends.host) as outgoing,
        server.accept()[0] as accepted,
    ):
        accepted.settimeout(PATIENCE)
        transfer = Transfer(accepted, outgoing)
        for number in range(24):
            path.apply(clients(ends.client, f"10.1.1.{number}", f"fd00:1::1:{number:x}"))
            transfer.wait_for_more()
        sent, came_back = transfer.end()
    assert sent == came_back
