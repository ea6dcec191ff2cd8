"""Networks and services, and the texts that are none."""

from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reyes.net import (
    Everything,
    Family,
    Protocol,
    Service,
    canonical,
    contains,
    family_of,
    is_within,
    network_order,
    only_family,
    parse_address,
    parse_network,
    protocol_number,
    service_families,
    service_text,
    span,
    without,
)
from tests.strategies import networks
from tests.worlds import icmp, icmpv6, tcp, udp


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3/32", "10.1.2.3"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8:0:0::/64", "2001:db8::/64"),
        ("fd00::1/128", "fd00::1"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_has_one_text(text: str, written: str) -> None:
    assert canonical(parse_network(text)) == written


NO_NETWORK = [
    "",
    " ",
    "10.0.0.0/40",
    "10.0.0.0/-1",
    "10.0.0.1/8",
    "10.0.0",
    "010.0.0.1",
    "10.0.0.01",
    "0xa.0.0.1",
    "10.0.0.256",
    "10.0.0.1.",
    "10.0.0.1\0",
    "10.0.0.1\n",
    "10.0.0.0/8\n-A INPUT -j ACCEPT",
    " 10.0.0.1",
    "10.0.0.1 nomatch",
    "\u0661\u0660.0.0.1",
    "fe80::1%eth0",
    "fe80::1%x\n-A INPUT -j ACCEPT",
    "2001:db8::/129",
    "web",
]


@pytest.mark.parametrize("text", NO_NETWORK)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_network(text)


@pytest.mark.parametrize("text", [*NO_NETWORK, "10.0.0.1/32", "10.1", "2001:DB8::1", "::1.2.3.4"])
def test_a_span_is_read_from_canonical_text_alone(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        span(text)


@given(networks())
def test_a_span_is_the_first_and_the_last_address(text: str) -> None:
    network = parse_network(text)
    version, first, last = span(canonical(network))
    assert version == network.version
    assert (first, last) == (int(network.network_address), int(network.broadcast_address))


@pytest.mark.parametrize("text", ["10.0.0.0/8", "fe80::1%eth0", "web", "10.0.0.1\n", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_address(text)


@pytest.mark.parametrize(
    ("outer", "inner", "holds"),
    [
        ("10.0.0.0/8", "10.1.0.0/16", True),
        ("10.0.0.0/8", "10.0.0.0/8", True),
        ("10.1.0.0/16", "10.0.0.0/8", False),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("0.0.0.0/0", "fd00::1", False),
        ("::/0", "10.0.0.1", False),
        ("::/0", "fd00::1", True),
    ],
)
def test_containing(outer: str, inner: str, holds: bool) -> None:
    assert contains(parse_network(outer), parse_network(inner)) is holds
    assert is_within(span(inner), span(outer)) is holds


@pytest.mark.parametrize(
    ("others", "left"),
    [
        (("10.0.0.1",), ["10.0.0.0", "10.0.0.2/31"]),
        (("10.0.0.1", "10.0.0.2/31"), ["10.0.0.0"]),
        (("10.0.0.0/8",), []),
        (("10.0.0.4/30", "::/0"), ["10.0.0.0/30"]),
    ],
)
def test_what_is_left_of_a_network_without_others(
    others: tuple[str, ...], left: list[str]
) -> None:
    rest = without(parse_network("10.0.0.0/30"), map(parse_network, others))
    assert sorted(map(canonical, rest)) == left


@given(networks(), networks())
def test_order_is_by_family_address_and_prefix(one: str, other: str) -> None:
    a, b = parse_network(one), parse_network(other)
    if a.version != b.version:
        assert (network_order(a) < network_order(b)) == (a.version == 4)
    else:
        expected = (a.network_address, a.prefixlen) < (b.network_address, b.prefixlen)
        assert (network_order(a) < network_order(b)) == expected


def test_a_family_knows_all_its_addresses() -> None:
    assert [family.everywhere for family in Family] == [
        ip_network("0.0.0.0/0"),
        ip_network("::/0"),
    ]
    assert [family_of(family.everywhere) for family in Family] == list(Family)


@given(st.lists(networks()))
def test_networks_are_told_apart_by_family(texts: list[str]) -> None:
    for family in Family:
        expected = tuple(text for text in texts if family_of(parse_network(text)) is family)
        assert only_family(tuple(texts), family) == expected


V4, V6 = Family.V4, Family.V6


@pytest.mark.parametrize(
    ("service", "text", "families"),
    [
        (tcp(443), "tcp 443", {V4, V6}),
        (tcp(80, 90), "tcp 80-90", {V4, V6}),
        (tcp(0, 65535), "tcp all ports", {V4, V6}),
        (udp(0), "udp 0", {V4, V6}),
        (icmp(8, 0), "icmp 8/0", {V4}),
        (icmp(8), "icmp 8", {V4}),
        (icmp(), "icmp", {V4}),
        (icmp(-1, 5), "icmp -1/5", {V4}),
        (icmpv6(), "icmpv6", {V6}),
        (icmpv6(128, 0), "icmpv6 128/0", {V6}),
        (Protocol(number=50), "protocol 50", {V4, V6}),
        (Protocol(number=51), "protocol 51", {V4}),
        (Everything(), "all", {V4, V6}),
    ],
)
def test_a_service_in_words(service: Service, text: str, families: set[Family]) -> None:
    assert service_text(service) == text
    assert service_families(service) == families


@pytest.mark.parametrize(
    "text",
    [
        b'{"kind":"ports","protocol":"tcp","first":0,"last":65536}',
        b'{"kind":"ports","protocol":"sctp","first":0,"last":1}',
        b'{"kind":"icmp","protocol":"icmp","type":256,"code":0}',
        b'{"kind":"icmp","protocol":"icmp","type":-2,"code":0}',
        b'{"kind":"protocol","number":256}',
        b'{"kind":"any"}',
        b"{}",
    ],
)
def test_an_impossible_service_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Service)


@pytest.mark.parametrize(
    ("text", "number"),
    [("6", 6), ("tcp", 6), ("\u0666", 6), ("\u00b2", None), ("none-such", None)],
)
def test_a_protocol_is_a_number_or_a_name(text: str, number: int | None) -> None:
    assert protocol_number(text) == number
