"""What becomes of open connections when a member is removed: real TCP that talks both ways."""

import re
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.kernel.followers import PATIENCE, FollowerHost, Keys, wait_for
from tests.kernel.generations import HERE, NETWORK
from tests.kernel.judge import BACKENDS

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize("version", [4, 6])
MODES = pytest.mark.parametrize("established", ["aws", "strict"])


@pytest.fixture(params=BACKENDS)
def open_host(request: pytest.FixtureRequest, keys: Keys) -> Iterator[FollowerHost]:
    """A host whose neighbour is the one member that generation 0 lets in, at port 1000."""
    with FollowerHost(keys, request.param) as host:
        host.answer(*(f"{network}10" for network in NETWORK.values()))
        yield host


def kind(version: int) -> socket.AddressFamily:
    return socket.AF_INET if version == 4 else socket.AF_INET6


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
    with (
        host.wire.host.call(
            socket.create_server, (HERE[version], 1000), family=kind(version)
        ) as server,
        host.wire.neighbour.call(
            socket.create_connection, (HERE[version], 1000), timeout=PATIENCE
        ) as client,
        closing(server.accept()[0]) as accepted,
    ):
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
        before = denied(host, version)
        accepted.send(b"hello?")
        wait_for(lambda: denied(host, version) > before, "the answer is denied")
        assert unacknowledged(accepted) > 0


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
    with (
        host.wire.neighbour.call(
            socket.create_server, (member, 0), family=kind(version)
        ) as server,
        host.wire.host.call(
            socket.create_connection, (member, server.getsockname()[1]), timeout=PATIENCE
        ) as outgoing,
        closing(server.accept()[0]) as accepted,
    ):
        talk(outgoing, accepted)
        host.publish(1)
        assert host.run().returncode == 0
        talk(outgoing, accepted)
        with (
            host.wire.host.call(
                socket.create_connection, (member, server.getsockname()[1]), timeout=PATIENCE
            ) as another,
            closing(server.accept()[0]) as also,
        ):
            talk(another, also)


@FAMILIES
@MODES
def test_a_member_that_stays_keeps_its_connection(
    open_host: FollowerHost, established: str, version: int
) -> None:
    host = open_host
    host.configure(established=established)
    host.apply(0)
    with (
        host.wire.host.call(
            socket.create_server, (HERE[version], 1000), family=kind(version)
        ) as server,
        host.wire.neighbour.call(
            socket.create_connection, (HERE[version], 1000), timeout=PATIENCE
        ) as client,
        closing(server.accept()[0]) as accepted,
    ):
        talk(client, accepted)
        host.iptables("-F", "reyes-ingress", version=version)
        assert host.run().returncode == 0
        host.publish(3)
        assert host.run().returncode == 0
        talk(client, accepted)
