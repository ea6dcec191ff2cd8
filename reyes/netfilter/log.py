"""What the kernel's log says of packets that ended in our drop chain (nf_log_syslog).

    reyes-drop: IN=eth0 OUT= MAC=... SRC=10.2.0.30 DST=10.1.0.40 ... PROTO=TCP SPT=36242 DPT=5432

Before that a line may hold a time and what a journal writes up to `kernel:`, and nothing else:
other words of the kernel's name programs and files, which any user may call what he likes.
"""

import re

from msgspec import Struct

from reyes.net import LAST_PORT, PROTOCOL_NUMBERS, parse_address
from reyes.netfilter import names
from reyes.netfilter.evaluate import Packet

_START = re.compile(
    r"(?:\d+\.\d+ )?(?:(?:(?:(?!kernel:|\[)\S+\s+){0,5}|\[[\d. ]*\] [\w.-]+ )kernel:\s+)?"
    r"(?:\[[^\]]*\]\s+)?"
    rf"({names.DROP_LOG}|{names.AUDIT_LOG}) (?=IN=)"
)
_MOMENT = re.compile(r"^\d{1,11}\.\d{1,9}(?= )")
_FIELD = re.compile(r"(?<!\S)([A-Z]+)=(\S*)")
_NUMBERS = {name.upper(): number for name, number in PROTOCOL_NUMBERS.items()}
_NUMBERS |= {"ESP": 50, "AH": 51, "UDPLITE": 136}
_MAX_BYTE = 255


class LoggedPacket(Struct, frozen=True):
    """A packet that was denied or, in audit mode, would be; and when, if the line says so."""

    packet: Packet
    audit: bool
    at: float | None


def parse_line(line: str) -> LoggedPacket | None:
    """Read one line; None if it is not about a packet of ours."""
    start = _START.match(line)
    if not start:
        return None
    # In brackets ICMP errors quote the packet that they are about.
    said = line[start.end() :].partition("[")[0]
    fields = dict(reversed(_FIELD.findall(said)))
    try:
        packet = _packet(fields)
    except (KeyError, ValueError):
        return None
    moment = _MOMENT.match(line)
    return LoggedPacket(packet, start[1] == names.AUDIT_LOG, float(moment[0]) if moment else None)


def _packet(fields: dict[str, str]) -> Packet:
    """Build the packet; KeyError or ValueError if the fields are not those of one."""
    name = fields["PROTO"].upper()
    protocol = _NUMBERS[name] if name in _NUMBERS else _number(name, _MAX_BYTE)
    has_ports = protocol in (PROTOCOL_NUMBERS["tcp"], PROTOCOL_NUMBERS["udp"])
    icmp = None
    if "TYPE" in fields and "CODE" in fields:
        icmp = _number(fields["TYPE"], _MAX_BYTE), _number(fields["CODE"], _MAX_BYTE)
    return Packet(
        source=parse_address(fields["SRC"]),
        destination=parse_address(fields["DST"]),
        protocol=protocol,
        # A fragment but the first has none.
        port=_number(fields["DPT"], LAST_PORT) if has_ports and "DPT" in fields else None,
        icmp=icmp,
        interface=fields["IN"],
    )


def _number(text: str, largest: int) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > largest:
        raise ValueError(f"{text} is not a number up to {largest}")
    return int(text)
