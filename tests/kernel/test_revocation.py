"""What becomes of open connections when a member is removed: real TCP that talks both ways."""

import re
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from reyes.demo.namespaces import Namespace
from tests.kernel.followers import PATIENCE, FollowerHost, Keys, wait_for
from tests.kernel.generations import HERE, NETWORK
from tests.kernel.judge import BACKENDS

pytestmark = pytest.mark.kernel

CLOSED_SECONDS = "net/netfilter/nf_conntrack_tcp_timeout_close"
LOOSE = "net/netfilter/nf_conntrack_tcp_loose"

FAMILIES = pytest.mark.parametrize("version", [4, 6])
MODES = pytest.mark.parametrize("established", ["aws", "strict"])


@pytest.fixture(params=BACKENDS)
def open_host(request: pytest.FixtureRequest, keys: Keys) -> Iterator[FollowerHost]:
    """A host whose neighbour is the one member that generation 0 lets in, at port 1000."""
    with FollowerHost(keys, request.param) as host:
        host.answer(*(f"{network}10" for network in NETWORK.values()))
        yield host


@contextmanager
def connection(
    client: Namespace, server: Namespace, address: tuple[str, int]
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Open a connection, and yield both of its ends: the client's, the server's."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with (
        server.call(socket.create_server, address, family=family) as listener,
        client.call(socket.create_connection, address, timeout=PATIENCE) as opened,
        closing(listener.accept()[0]) as accepted,
    ):
        yield opened, accepted


def from_member(
    host: FollowerHost, version: int
) -> AbstractContextManager[tuple[socket.socket, socket.socket]]:
    return connection(host.wire.neighbour, host.wire.host, (HERE[version], 1000))


def talk(one: socket.socket, other: socket.socket) -> None:
    """Say something each way."""
    for speaker, listener in ((one, other), (other, one)):
        listener.settimeout(PATIENCE)
        speaker.sendall(b"word")
        assert listener.recv(16) == b"word"


def denied(host: FollowerHost, version: int) -> int:
    """Count the packets that the final drop has seen."""
    prefix = "iptables" if version == 4 else "ip6tables"
    done = host.wire.run([f"{prefix}-{host.backend}-save", "-c", "-t", "filter"])
    found = re.search(r"^\[(\d+):\d+\] -A reyes-drop .*-j DROP", done.stdout, re.MULTILINE)
    assert found
    return int(found[1])


@FAMILIES
@MODES
def test_an_open_connection_of_a_removed_member(
    open_host: FollowerHost, established: str, version: int
) -> None:
    host = open_host
    host.configure(established=established)
    host.apply(0)
    with from_member(host, version) as (client, accepted):
        talk(client, accepted)
        host.publish(1)
        assert host.run().returncode == 0
        if established == "aws":
            talk(client, accepted)
            talk(client, accepted)
            return
        before = denied(host, version)
        client.send(b"still there?")
        wait_for(lambda: denied(host, version) > before, "the packet is denied")
        assert select.select([accepted], [], [], 0)[0] == []
        # What the host says is not answered either, not even by an acknowledgement.
        speak_in_vain(host, version, accepted)


def speak_in_vain(host: FollowerHost, version: int, connected: socket.socket) -> None:
    """Let the host say something to which not even an acknowledgement comes in."""
    before = denied(host, version)
    connected.send(b"hello?")
    wait_for(lambda: denied(host, version) > before, "the answer is denied")
    assert unacknowledged(connected) > 0


@FAMILIES
def test_a_removed_member_that_resets_its_connection_does_not_come_back(
    open_host: FollowerHost, version: int
) -> None:
    """It ends the entry of connection tracking: the host's next packet must make none anew."""
    host = open_host
    host.configure(established="strict")
    host.apply(0)
    host.wire.host.sysctl(CLOSED_SECONDS, 0)
    with from_member(host, version) as (client, accepted):
        talk(client, accepted)
        host.publish(1)
        assert host.run().returncode == 0
        before = denied(host, version)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        wait_for(lambda: denied(host, version) > before, "the reset is denied")
        speak_in_vain(host, version, accepted)


def unacknowledged(opened: socket.socket) -> int:
    """Return how many segments nobody acknowledged (tcpi_unacked of linux/tcp.h)."""
    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[24:28], "little")


@FAMILIES
@MODES
def test_a_connection_that_the_host_opened_lives_on(
    open_host: FollowerHost, established: str, version: int
) -> None:
    host = open_host
    host.configure(established=established)
    host.apply(0)
    member = f"{NETWORK[version]}10"
    with connection(host.wire.host, host.wire.neighbour, (member, 1000)) as (outgoing, accepted):
        talk(outgoing, accepted)
        host.publish(1)
        assert host.run().returncode == 0
        talk(outgoing, accepted)
        with connection(host.wire.host, host.wire.neighbour, (member, 2000)) as (another, also):
            talk(another, also)


@FAMILIES
@MODES
def test_a_member_that_stays_keeps_its_connection(
    open_host: FollowerHost, established: str, version: int
) -> None:
    host = open_host
    host.configure(established=established)
    host.apply(0)
    with from_member(host, version) as (client, accepted):
        talk(client, accepted)
        host.iptables("-F", "reyes-ingress", version=version)
        assert host.run().returncode == 0
        host.publish(3)
        assert host.run().returncode == 0
        talk(client, accepted)


@FAMILIES
def test_the_price_of_strict_is_a_connection_that_tracking_has_lost(
    open_host: FollowerHost, version: int
) -> None:
    host = open_host
    host.configure(established="strict")
    host.apply(0)
    member = f"{NETWORK[version]}10"
    with connection(host.wire.host, host.wire.neighbour, (member, 1000)) as (outgoing, accepted):
        talk(outgoing, accepted)
        host.wire.forget()
        speak_in_vain(host, version, outgoing)


def is_loose(host: FollowerHost) -> bool:
    return host.wire.run(["cat", f"/proc/sys/{LOOSE}"]).stdout == "1\n"


def test_connections_are_known_from_their_beginning_if_the_configuration_says_so(
    host: FollowerHost,
) -> None:
    host.apply(0)
    host.configure(established="strict")
    assert host.run("--dry-run").returncode == 0
    assert is_loose(host)
    assert "INFO nf_conntrack_tcp_loose set to 0" in host.run().stdout
    assert not is_loose(host)
    assert "nf_conntrack" not in host.run().stdout
    host.wire.host.sysctl(LOOSE, 1)
    done = host.run()
    assert "INFO nf_conntrack_tcp_loose set to 0" in done.stdout
    assert "INFO unchanged" in done.stdout
    host.wire.host.sysctl(LOOSE, 1)
    (host.directory / "ruleset.gpg").unlink()
    assert host.run().returncode == 78  # what is in force is strict all the same
    assert not is_loose(host)
    assert host.run("--remove", file=False).returncode == 0
    assert not is_loose(host)


def test_audit_mode_makes_nothing_strict(host: FollowerHost) -> None:
    host.configure(established="strict", enforce=False)
    host.publish(0)
    assert host.run().returncode == 0
    assert is_loose(host)
    assert "tcp_loose" not in host.run(command="check", file=False).stdout


def test_a_kernel_that_refuses_to_be_strict_costs_no_rules(host: FollowerHost) -> None:
    host.mount("--bind", "/proc/sys", "/proc/sys")
    host.mount("-o", "remount,bind,ro", "/proc/sys")
    host.configure(established="strict")
    host.publish(0)
    done = host.run()
    assert done.returncode == 0
    assert f"WARNING cannot set /proc/sys/{LOOSE} to 0: [Errno 30]" in done.stdout
    assert host.in_force() == (0, 0)
    done = host.run(command="check", file=False)
    assert (done.returncode, done.stdout.count("needs nf_conntrack_tcp_loose to be 0")) == (1, 1)
