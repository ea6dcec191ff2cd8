"""What the kernel itself says: which of Reyes's rules counted a packet."""

import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence

from reyes.errors import KernelError
from reyes.netfilter.names import DIGEST

_RULE = re.compile(
    rf"^\[(\d+):\d+\] -A reyes-\S+ .*--comment \"([^\"]*) #{DIGEST}\"", re.MULTILINE
)
_DECIDING = ("sg-", "denied: ", "accepted: icmp", "failsafe: ", "not judged: ")
_IDENTIFIER = re.compile(r"\b(?:sg|eni|vpc)-[0-9a-f]+\b")


def counters() -> Counter[str]:
    """Read how many packets each of Reyes's rules has counted, by the rule's comment."""
    rules: Counter[str] = Counter()
    for packets, comment in _RULE.findall(_saved("--counters")):
        rules[comment] += int(packets)
    return rules


def rules_in_force() -> str:
    """Return the filter table's rules, without what changes while they stand."""
    lines = _saved().splitlines()
    return "\n".join(line for line in lines if line.startswith("-"))


def deciding_rule(comments: Sequence[str], names: Mapping[str, str]) -> str:
    """Tell which of the rules that a probe met decided; `names` replaces identifiers of EC2.

    Replies to what the host itself sent count on other rules at the same time: these never
    decide.
    """
    for beginning in _DECIDING:
        for comment in comments:
            if comment.startswith(beginning):
                return _IDENTIFIER.sub(lambda found: names.get(found[0], found[0]), comment)
    return "none: not from the tunnel, not judged"


def _saved(*options: str) -> str:
    argv = ["iptables-save", *options, "--table", "filter"]
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    if done.returncode != 0:
        raise KernelError(f"iptables-save: {done.stderr.strip()}")
    return done.stdout
