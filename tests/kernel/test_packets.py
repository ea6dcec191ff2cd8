"""The packet injector itself, against rules so plain that their verdict is beyond doubt."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

import pytest

from reyes.netfilter.evaluate import Packet
from tests.kernel.packets import ICMP, ICMPV6, TCP, UDP, Wire

pytestmark = pytest.mark.kernel

HOST, HOST6 = "10.2.0.40", "fd00:2::40"
FRIEND, FRIEND6 = "10.1.0.20", "fd00:1::20"
STRANGER, STRANGER6 = "172.16.9.9", "2001:db8::9"
GRE, ESP = 47, 50


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire([HOST, HOST6], interfaces=["eth0", "wg0"]) as opened:
        yield opened


def packet(
    source: str,
    destination: str,
    protocol: int,
    port: int | None = None,
    *,
    kind: tuple[int, int] | None = None,
    interface: str = "eth0",
) -> Packet:
    return Packet(
        source=ip_address(source),
        destination=ip_address(destination),
        protocol=protocol,
        port=port,
        icmp=kind,
        interface=interface,
    )


def every_kind(source: str, destination: str) -> list[Packet]:
    icmp = ICMP if ":" not in source else ICMPV6
    return [
        packet(source, destination, TCP, port=443),
        packet(source, destination, UDP, port=53),
        packet(source, destination, icmp, kind=(8 if icmp == ICMP else 128, 0)),
        packet(source, destination, icmp, kind=(13, 0)),
        packet(source, destination, GRE),
        packet(source, destination, ESP),
        packet(source, destination, 255),
    ]


ALL_KINDS = [
    sent
    for source, destination in (
        (FRIEND, HOST),
        (STRANGER, HOST),
        (FRIEND6, HOST6),
        (STRANGER6, HOST6),
    )
    for sent in every_kind(source, destination)
]


def test_without_rules_everything_passes(wire: Wire) -> None:
    assert wire.probe(ALL_KINDS) == [True] * len(ALL_KINDS)


BACKENDS = ["nft", "legacy"]

V4_RULES = f"""*filter
:INPUT DROP [0:0]
-A INPUT -s {FRIEND} -p tcp --dport 443 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT -p udp --dport 5000:5100 -j ACCEPT
-A INPUT -p icmp --icmp-type 3/4 -j ACCEPT
-A INPUT -p 47 -j ACCEPT
-A INPUT -i wg0 -p 50 -j ACCEPT
COMMIT
"""

V4_VERDICTS = [
    (packet(FRIEND, HOST, TCP, 443), True),
    (packet(STRANGER, HOST, TCP, 443), False),
    (packet(FRIEND, HOST, TCP, 444), False),
    (packet(STRANGER, HOST, UDP, 5000), True),
    (packet(STRANGER, HOST, UDP, 5100), True),
    (packet(STRANGER, HOST, UDP, 5101), False),
    (packet(STRANGER, HOST, ICMP, kind=(3, 4)), True),
    (packet(STRANGER, HOST, ICMP, kind=(3, 1)), False),
    (packet(FRIEND, HOST, GRE), True),
    (packet(FRIEND, HOST, ESP), False),
    (packet(FRIEND, HOST, ESP, interface="wg0"), True),
]

V6_RULES = f"""*filter
:INPUT DROP [0:0]
-A INPUT -s {FRIEND6} -p tcp --dport 443 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT -p udp --dport 5000:5100 -j ACCEPT
-A INPUT -p icmpv6 --icmpv6-type 135 -j ACCEPT
-A INPUT -p 47 -j ACCEPT
-A INPUT -i wg0 -p 50 -j ACCEPT
COMMIT
"""

V6_VERDICTS = [
    (packet(FRIEND6, HOST6, TCP, 443), True),
    (packet(STRANGER6, HOST6, TCP, 443), False),
    (packet(FRIEND6, HOST6, TCP, 444), False),
    (packet(STRANGER6, HOST6, UDP, 5000), True),
    (packet(STRANGER6, HOST6, UDP, 5101), False),
    (packet(STRANGER6, HOST6, ICMPV6, kind=(135, 0)), True),
    (packet(STRANGER6, HOST6, ICMPV6, kind=(128, 0)), False),
    (packet(FRIEND6, HOST6, GRE), True),
    (packet(FRIEND6, HOST6, ESP), False),
    (packet(FRIEND6, HOST6, ESP, interface="wg0"), True),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_verdicts_are_those_of_the_rules(wire: Wire, backend: str) -> None:
    wire.run([f"iptables-{backend}-restore", "-w"], V4_RULES)
    wire.run([f"ip6tables-{backend}-restore", "-w"], V6_RULES)
    expected = V4_VERDICTS + V6_VERDICTS
    verdicts = wire.probe([sent for sent, _ in expected])
    assert list(zip([sent for sent, _ in expected], verdicts, strict=True)) == expected


def test_the_kernel_finds_no_packet_malformed(wire: Wire) -> None:
    invalid = (
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n"
    )
    wire.run(["iptables-nft-restore", "-w"], invalid)
    wire.run(["ip6tables-nft-restore", "-w"], invalid)
    sound = [sent for sent in ALL_KINDS if sent.icmp in (None, (8, 0), (128, 0))]
    assert wire.probe(sound) == [True] * len(sound)


def test_ten_thousand_packets_each_get_their_own_verdict(wire: Wire) -> None:
    odd = "".join(f"-A INPUT -p udp --dport {port} -j DROP\n" for port in range(1, 100, 2))
    wire.run(["iptables-nft-restore", "-w"], f"*filter\n:INPUT ACCEPT [0:0]\n{odd}COMMIT\n")
    packets = [
        packet(f"10.{i // 250}.{i % 250}.1", HOST, UDP, port=i % 100) for i in range(10_000)
    ]
    assert wire.probe(packets) == [sent.port is None or sent.port % 2 == 0 for sent in packets]


def test_a_destination_that_input_never_sees_is_a_mistake(wire: Wire) -> None:
    with pytest.raises(ValueError, match=r"10\.2\.0\.41 is no address of the host"):
        wire.probe([packet(FRIEND, "10.2.0.41", TCP, 443)])


def test_what_a_new_link_drops_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Wire._send
    lost: list[int] = []

    def lose_the_first(wire: Wire, numbered: Sequence[tuple[int, Packet]], last: int) -> None:
        if lost:
            send(wire, numbered, last)
        lost.append(last)

    monkeypatch.setattr(Wire, "_send", lose_the_first)
    with Wire([HOST]) as wire:
        assert wire.probe(every_kind(FRIEND, HOST)) == [True] * 7
