"""How many packets ended in our accept and drop chains: `iptables-save -c` text as numbers."""

import re

from msgspec import Struct

from reyes.netfilter import names
from reyes.netfilter.live import in_one_line_each

_COUNTED_RULE = re.compile(r"^\[(\d+):\d+\] -A (\S+) ")


class Packets(Struct, frozen=True):
    """Packets that no known connection explains.

    Counted from the commit on that wrote the chain: others leave it as it is. In audit mode
    `denied` counts those that would be.
    """

    accepted: int = 0
    denied: int = 0


def parse_packets(text: str) -> Packets:
    """Read the count of the last rule of each chain: logging stands before it."""
    counts: dict[str, int] = {}
    for line in in_one_line_each(text).split("\n"):
        found = _COUNTED_RULE.match(line)
        if found:
            counts[found[2]] = int(found[1])
    return Packets(counts.get(names.ACCEPT, 0), counts.get(names.DROP, 0))
