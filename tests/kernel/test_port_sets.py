"""Sets of sources and ports in the kernel: what it lets in, and that nothing there counts."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from reyes.adapters.kernel import Kernel
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.entries import network_and_rest, reach_of
from reyes.netfilter.evaluate import Packet
from reyes.netfilter.ipset import IPSet, repair_text
from reyes.netfilter.plan import drifted_sets
from tests.cases import case, compiled
from tests.kernel.judge import BACKENDS, Backend, backend, commit
from tests.kernel.packets import TCP, Wire
from tests.worlds import allow, tcp

pytestmark = pytest.mark.kernel

HOST, HOST6 = "10.1.0.10", "fd00:1::10"
ONE, NEIGHBOUR, WIDE, OTHER = "10.99.0.1", "10.99.0.2", "10.99.0.0/16", "10.98.0.0/16"
ONE6, NEIGHBOUR6, WIDE6, OTHER6 = "fd00:99::1", "fd00:99::2", "fd00:99::/64", "fd00:98::/64"


def overlapping(one: str, wide: str, other: str) -> Dataplane:
    """Overlapping ranges for a sender, a network that holds it and another; enough for a tree."""
    ranges = [
        allow(tcp(1000, 2000), one),
        allow(tcp(1200, 2600), other),
        allow(tcp(1500, 3000), wide),
    ]
    return compiled(case(*ranges, *(allow(tcp(5000 + 2 * n), wide) for n in range(17))))


DATAPLANES = {
    "IPv4": (overlapping(ONE, WIDE, OTHER), HOST, ONE, NEIGHBOUR),
    "IPv6": (overlapping(ONE6, WIDE6, OTHER6), HOST6, ONE6, NEIGHBOUR6),
}


def port_set(dataplane: Dataplane) -> IPSet:
    """The one set with ports."""
    (found,) = [entry for entry in dataplane.sets if entry.name.startswith("p")]
    return found


@pytest.fixture(params=BACKENDS)
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    name: Backend = request.param
    with backend(name), Wire([HOST, HOST6]) as opened:
        yield opened


def passing(wire: Wire, source: str, host: str, ports: list[int]) -> list[int]:
    wire.forget()
    packets = [
        Packet(source=ip_address(source), destination=ip_address(host), protocol=TCP, port=number)
        for number in ports
    ]
    passed = wire.probe(packets)
    return [number for number, did in zip(ports, passed, strict=True) if did]


def reaches(entry: IPSet) -> dict[str, tuple[int, int]]:
    parted = map(network_and_rest, entry.members)
    return {network: reach_of(rest) for network, rest in parted}


BORDERS = [999, 1000, 1199, 1200, 1499, 1500, 2000, 2001, 2600, 2601, 3000, 3001, 5000, 5001]


def within(first: int) -> list[int]:
    """The borders from the first port of somebody to the last of the network's range."""
    return [port for port in BORDERS if first <= port <= 3000]


@pytest.mark.parametrize(
    ("dataplane", "host", "one", "neighbour"), DATAPLANES.values(), ids=DATAPLANES
)
def test_a_sender_may_use_its_own_ports_and_those_of_its_network(
    wire: Wire, dataplane: Dataplane, host: str, one: str, neighbour: str
) -> None:
    wire.host.call(commit, dataplane, "shared")
    assert passing(wire, one, host, BORDERS) == [*within(1000), 5000]
    assert passing(wire, neighbour, host, BORDERS) == [*within(1500), 5000]


def test_packets_change_nothing_in_a_set(wire: Wire) -> None:
    dataplane, *_ = DATAPLANES["IPv4"]
    wire.host.call(commit, dataplane, "shared")
    passing(wire, ONE, HOST, BORDERS * 20)
    members = wire.host.call(Kernel().read_members)
    assert members == {entry.name: entry.members for entry in dataplane.sets}
    assert not drifted_sets(members)


def test_a_foreign_rule_that_counts_in_a_set_narrows_it_and_is_seen(wire: Wire) -> None:
    dataplane, *_ = DATAPLANES["IPv4"]
    entry = port_set(dataplane)
    wire.host.call(commit, dataplane, "shared")
    before = reaches(entry)[ONE]
    wire.run(["iptables", "-I", "INPUT", "-m", "set", "--match-set", entry.name, "src"])
    passing(wire, ONE, HOST, [1000] * 20)
    members = wire.host.call(Kernel().read_members)
    first, last = reaches(replace(entry, members=members[entry.name]))[ONE]
    assert before[0] < first
    assert last < before[1]
    assert entry.name in drifted_sets(members)
    wire.run(["ipset", "restore"], repair_text([entry], ()))
    assert wire.host.call(Kernel().read_members)[entry.name] == entry.members
