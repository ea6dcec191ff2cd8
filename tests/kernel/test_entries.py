"""Sets of sources and services: all that ipset shows of them is what was written."""

import pytest

from reyes.adapters.kernel import Kernel
from reyes.net import Family, Icmp, Protocol, Service
from reyes.netfilter.entries import service_ports
from reyes.netfilter.ipset import create_text, ip_set
from reyes.netfilter.plan import drifted_sets
from tests.kernel.packets import Wire

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("family", "network", "icmp", "protocols"),
    [(Family.V4, "10.0.0.1", "icmp", 136), (Family.V6, "2001:db8::/64", "icmpv6", 0)],
)
def test_every_type_code_and_protocol_is_read_as_it_was_written(
    family: Family, network: str, icmp: str, protocols: int
) -> None:
    services: list[Service] = [
        *(Icmp(icmp, kind, -1) for kind in range(256)),  # type: ignore[arg-type]  # one of two literals
        *(Protocol(number) for number in range(1, 256)),
    ]
    ports = [port for service in services for port in service_ports(service, family)]
    entry = ip_set(family, "services", (f"{network},{port}" for port in ports))
    with Wire([]) as wire:
        wire.run(["ipset", "restore"], create_text([entry]))
        members = wire.host.call(Kernel().read_members)
    assert members == {entry.name: entry.members}
    assert len(entry.members) == 256 * 256 + protocols
    assert not drifted_sets(members)
