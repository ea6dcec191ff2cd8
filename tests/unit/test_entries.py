"""Entries of sets: what tells a service, and how what ipset shows is read."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reyes.net import Everything, Family, Icmp, Ports, Protocol, Service
from reyes.netfilter import entries
from reyes.netfilter.entries import (
    as_written,
    in_words,
    network_and_rest,
    packet_port,
    reach_of,
    service_ports,
    with_reach,
)
from reyes.netfilter.ipset import create_text, ip_set
from reyes.netfilter.names import set_type, vouches_for

PORTS = st.integers(0, 65_535)


@pytest.mark.parametrize(
    ("service", "ports"),
    [
        (Icmp("icmp", 8, 0), ["1:8/0"]),
        (Icmp("icmpv6", 200, 3), ["58:200/3"]),
        (Protocol(47), ["47:0"]),
        (Icmp("icmp", -1, -1), []),
        (Ports("tcp", 22, 22), []),
        (Everything(), []),
    ],
)
def test_what_a_set_holds_of_a_service(service: Service, ports: list[str]) -> None:
    assert list(service_ports(service, Family.V4)) == ports


def test_any_code_is_each_code() -> None:
    ports = service_ports(Icmp("icmp", 8, -1), Family.V4)
    assert set(ports) == {packet_port(1, (8, code)) for code in range(256)}


@pytest.mark.parametrize("number", [1, 6, 17, 58, 132, 136, 143, 255])
def test_protocols_with_ports_and_without_a_name_are_not_told_by_a_set(number: int) -> None:
    assert service_ports(Protocol(number), Family.V4) == ()


def test_protocols_are_told_in_ipv4_alone() -> None:
    assert service_ports(Protocol(47), Family.V6) == ()


SHOWN = {
    "10.0.0.1": "10.0.0.1",
    "::1.2.3.4": "::102:304",
    "10.0.0.0/24,icmp:echo-request": "10.0.0.0/24,1:8/0",
    "10.0.0.1,icmp:8/5": "10.0.0.1,1:8/5",
    "10.0.0.1,1:8/5": "10.0.0.1,1:8/5",
    "2001:db8::1,ipv6-icmp:echo-request": "2001:db8::1,58:128/0",
    "::1.2.3.4,ipv6-icmp:200/3": "::102:304,58:200/3",
    "10.0.0.1,gre:0": "10.0.0.1,47:0",
    "10.0.0.1,250:0": "10.0.0.1,250:0",
    "10.0.0.1,tcp:22": "10.0.0.1,6:22",
    "10.0.0.1,icmp:of-another-version": "10.0.0.1,1:of-another-version",
    "10.0.0.1,of-another-host:0": "10.0.0.1,of-another-host:0",
}


@pytest.mark.parametrize(("shown", "written"), SHOWN.items())
def test_what_ipset_shows_is_read_as_we_write_it(shown: str, written: str) -> None:
    assert as_written(shown) == written


def test_a_name_of_a_protocol_is_asked_for_until_it_is_known() -> None:
    with patch("reyes.net.getprotobyname", side_effect=[OSError, 99]):
        assert as_written("10.0.0.1,ours-alone:0") == "10.0.0.1,ours-alone:0"
        assert as_written("10.0.0.1,ours-alone:0") == "10.0.0.1,99:0"


def test_a_set_of_sources_and_ports() -> None:
    entry = ip_set(Family.V4, "ports", [with_reach("10.2.0.10", 80, 65_535)])
    assert create_text([entry]) == (
        f"create {entry.name} hash:net family inet hashsize 64 maxelem 1 counters\n"
        f"add {entry.name} 10.2.0.10 packets 80 bytes 0\n"
    )
    assert entry.name.startswith("p4:ports:")
    assert vouches_for(entry.name, entry.members)
    assert create_text([replace(entry, members=())]).endswith(" counters\n")


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 65_535), (80, 443), (65_535, 65_535)])
def test_a_reach_is_read_as_it_was_written(first: int, last: int) -> None:
    entry = with_reach("2001:db8::/64", first, last)
    network, rest = network_and_rest(entry)
    assert (network, reach_of(rest)) == ("2001:db8::/64", (first, last))


def test_a_reach_is_told_as_ports() -> None:
    assert in_words(with_reach("2001:db8::/64", 80, 443)) == "2001:db8::/64 to 80-443"
    assert in_words(with_reach("10.0.0.1", 80, 80)) == "10.0.0.1 to 80"


@given(st.tuples(PORTS, PORTS).map(sorted), st.integers(0, 10**6), st.integers(0, 10**9))
def test_what_counts_by_mistake_only_narrows(ends: list[int], packets: int, octets: int) -> None:
    _, begin, _, behind = network_and_rest(with_reach("10.0.0.1", *ends))[1].split()
    first, last = reach_of(f"packets {int(begin) + packets} bytes {int(behind) + octets}")
    assert ends[0] <= first
    assert last <= ends[1]


@pytest.mark.parametrize(
    "entry", ["10.0.0.1", "10.0.0.1,47:0", "10.0.0.1 nomatch", "10.0.0.1 packets 1 bytes 2 x"]
)
def test_what_is_no_reach_is_told_as_it_is(entry: str) -> None:
    assert in_words(entry) == entry


def test_a_set_of_sources_and_services() -> None:
    entry = ip_set(Family.V4, "services", ["10.2.0.10,47:0", "10.2.0.10,1:8/0"])
    assert create_text([entry]) == (
        f"create {entry.name} hash:net,port family inet hashsize 64 maxelem 2\n"
        f"add {entry.name} 10.2.0.10,1:8/0\n"
        f"add {entry.name} 10.2.0.10,47:0\n"
    )
    assert vouches_for(entry.name, entry.members)


def test_the_name_of_a_set_tells_its_type_also_when_it_is_empty() -> None:
    entry = ip_set(Family.V4, "services", ["10.0.0.1,47:0"])
    assert (entry.name[:3], set_type(entry.name)) == ("s4:", "hash:net,port")
    assert "hash:net,port " in create_text([replace(entry, members=())])
    assert not vouches_for(entry.name, ())
    assert set_type(ip_set(Family.V4, "services", ["10.0.0.1"]).name) == "hash:net"


def test_no_two_names_of_icmp_mean_the_same() -> None:
    for known in entries._ICMP_NAMES.values():
        assert len(set(known.values())) == len(known)
