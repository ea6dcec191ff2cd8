"""Lines that a kernel wrote (6.1, nf_log_syslog), and what is read from them."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reyes.netfilter.evaluate import Packet
from reyes.netfilter.log import LoggedPacket, parse_line

V4 = (
    "reyes-drop: IN=eth0 OUT= MAC=8e:db:11:f6:1b:44:e6:25:25:c4:4c:35:08:00"
    " SRC=10.1.0.30 DST=10.1.0.40 "
)
V6 = (
    "reyes-drop: IN=eth0 OUT= MAC=8e:db:11:f6:1b:44:e6:25:25:c4:4c:35:86:dd"
    " SRC=2001:0db8:0001:0000:0000:0000:0000:0030 DST=2001:0db8:0001:0000:0000:0000:0000:0040 "
)
TCP_LINE = (
    f"{V4}LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=62838 DF PROTO=TCP SPT=36242 DPT=5432"
    " WINDOW=64240 RES=0x00 SYN URGP=0 "
)


def packet(protocol: int, **more: Any) -> Packet:
    return Packet(
        source=ip_address("10.1.0.30"),
        destination=ip_address("10.1.0.40"),
        protocol=protocol,
        **more,
    )


def packet6(protocol: int, **more: Any) -> Packet:
    return Packet(
        source=ip_address("2001:db8:1::30"),
        destination=ip_address("2001:db8:1::40"),
        protocol=protocol,
        **more,
    )


LINES = {
    "tcp": (TCP_LINE, packet(6, port=5432)),
    "udp": (
        f"{V4}LEN=29 TOS=0x00 PREC=0x00 TTL=64 ID=37153 DF PROTO=UDP SPT=60473 DPT=53 LEN=9 ",
        packet(17, port=53),
    ),
    "icmp": (
        f"{V4}LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=57184 DF PROTO=ICMP TYPE=8 CODE=0 ID=0 SEQ=0 ",
        packet(1, icmp=(8, 0)),
    ),
    "an icmp error that quotes a packet": (
        (
            f"{V4}LEN=56 TOS=0x00 PREC=0x00 TTL=64 ID=57185 DF PROTO=ICMP TYPE=3 CODE=3"
            " [SRC=10.1.0.40 DST=10.9.9.9 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=0 DF PROTO=UDP"
            " SPT=1234 DPT=53 LEN=8 ] "
        ),
        packet(1, icmp=(3, 3)),
    ),
    "gre": (f"{V4}LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=46707 DF PROTO=47 ", packet(47)),
    "esp": (
        f"{V4}LEN=44 TOS=0x00 PREC=0x00 TTL=64 ID=46020 DF PROTO=ESP SPI=0x1234 ",
        packet(50),
    ),
    "tcp without its header": (
        f"{V4}LEN=22 TOS=0x00 PREC=0x00 TTL=64 ID=30047 DF PROTO=TCP INCOMPLETE [2 bytes] ",
        packet(6),
    ),
    "tcp over IPv6": (
        (
            f"{V6}LEN=80 TC=0 HOPLIMIT=64 FLOWLBL=757429 PROTO=TCP SPT=50454 DPT=5432 WINDOW=64800"
            " RES=0x00 SYN URGP=0 "
        ),
        packet6(6, port=5432),
    ),
    "the first fragment": (
        (
            f"{V6}LEN=1496 TC=0 HOPLIMIT=64 FLOWLBL=984695 FRAG:0 INCOMPLETE ID:1bfa4e58 PROTO=UDP"
            " SPT=58489 DPT=54 LEN=3008 "
        ),
        packet6(17, port=54),
    ),
    "another fragment": (
        (
            f"{V6}LEN=1496 TC=0 HOPLIMIT=64 FLOWLBL=984695 FRAG:1448 INCOMPLETE ID:1bfa4e58"
            " PROTO=UDP "
        ),
        packet6(17),
    ),
    "icmpv6": (
        f"{V6}LEN=48 TC=0 HOPLIMIT=64 FLOWLBL=896845 PROTO=ICMPv6 TYPE=128 CODE=0 ID=1 SEQ=1 ",
        packet6(58, icmp=(128, 0)),
    ),
    "sctp over IPv6": (
        f"{V6}LEN=52 TC=0 HOPLIMIT=64 FLOWLBL=514736 PROTO=132 ",
        packet6(132),
    ),
}


@pytest.mark.parametrize(("line", "expected"), LINES.values(), ids=LINES)
def test_what_the_kernel_wrote_is_read(line: str, expected: Packet) -> None:
    assert parse_line(line) == LoggedPacket(expected, audit=False, at=None)


def test_a_time_and_what_a_journal_adds_may_stand_before() -> None:
    found = parse_line(f"1795163376.123456 db-1 kernel: {TCP_LINE}\n")
    assert found == LoggedPacket(packet(6, port=5432), audit=False, at=1795163376.123456)


@pytest.mark.parametrize(
    "before",
    [
        "1795163376.123456 kernel: ",
        "[ 2211.307336] ",
        "[Wed Nov 18 12:06:40 2026] ",
        "Nov  8 12:06:40 db-1 kernel: ",
        "Nov 18 12:06:40 db-1 kernel: [ 2211.307336] ",
        "Wed 2026-11-18 12:06:40 UTC db-1 kernel: ",
        "[ 2211.307336] db-1 kernel: ",
        "2026-11-18T12:06:40.123456+00:00 db-1 kernel: [ 2211.307336] ",
    ],
)
def test_journals_and_syslogs_put_different_things_before(before: str) -> None:
    found = parse_line(f"{before}{TCP_LINE}")
    assert found is not None
    assert found.packet == packet(6, port=5432)


@pytest.mark.parametrize("before", ["1795163376.123456 kernel: ", "[ 2211.307336] "])
@pytest.mark.parametrize(
    "said",
    [
        "a.out[25718]: segfault at 0 ip 0055 sp 007f error 6 in x {}[1132,5603+1000]",
        "a.out[25718]: segfault at 0 ip 0055 sp 007f error 6 in x kernel: {}[1132,5603+1000]",
        "process '/tmp/x {}' started with executable stack",
        "process '/tmp/x kernel: {}' started with executable stack",
    ],
)
def test_a_program_that_is_called_like_a_denial_is_none(before: str, said: str) -> None:
    assert parse_line(before + said.format(TCP_LINE)) is None


def test_audit_mode_is_told_from_denial() -> None:
    found = parse_line(TCP_LINE.replace("reyes-drop", "reyes-audit"))
    assert found is not None
    assert found.audit


@pytest.mark.parametrize(
    "line",
    [
        "",
        "usb 1-1: new device",
        TCP_LINE.replace("reyes-drop", "reyes-accept"),
        TCP_LINE.replace("reyes-drop", "not-reyes-drop"),
        TCP_LINE.replace("PROTO=TCP", ""),
        TCP_LINE.replace("PROTO=TCP", "PROTO=256"),
        TCP_LINE.replace("PROTO=TCP", "PROTO=XYZ"),
        TCP_LINE.replace("DPT=5432", "DPT=65536"),
        TCP_LINE.replace("DPT=5432", "DPT=\u0665"),
        TCP_LINE.replace("SRC=10.1.0.30", "SRC=10.1.0"),
        TCP_LINE.replace("SRC=10.1.0.30", "SRC=fe80::1%\x1b[31m"),
        TCP_LINE.partition("DST")[0],
    ],
)
def test_other_lines_are_none_of_ours(line: str) -> None:
    assert parse_line(line) is None


@given(st.text(), st.integers(min_value=0, max_value=len(TCP_LINE)))
def test_no_line_makes_it_fail(text: str, position: int) -> None:
    parse_line(text)
    parse_line(TCP_LINE[:position] + text + TCP_LINE[position:])
