"""Names in the kernel: what they are made of, their limits, and which of them are ours.

* Chains start with `reyes-`. The kernel takes 28 characters (XT_EXTENSION_MAXNAMELEN - 1).
* Sets are called `r4:LABEL:DIGEST` or `r6:...`, those of sources and services `s4:...`, `s6:...`,
  those of sources and ports `p4:...`, `p6:...`. The kernel takes 31 (IPSET_MAXNAMELEN - 1). The
  digest is of what the set holds, so a name vouches for its members; the label is for people.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence

from reyes.net import Family

CHAIN_PREFIX = "reyes-"
INPUT = "reyes-input"
INGRESS = "reyes-ingress"
ACCEPT = "reyes-accept"
DROP = "reyes-drop"

DROP_LOG = "reyes-drop:"
AUDIT_LOG = "reyes-audit:"
"""What the kernel's log says before a packet that was denied, or would have been."""

MAX_CHAIN_LENGTH = 28
MAX_SET_LENGTH = 31
_DIGEST_BYTES = 15
_DIGEST_LENGTH = _DIGEST_BYTES * 4 // 3
DIGEST = rf"[A-Za-z0-9_-]{{{_DIGEST_LENGTH}}}"
"""The form of a `digest`, as a regular expression."""

_MAX_LABEL_LENGTH = MAX_SET_LENGTH - len("r4::") - _DIGEST_LENGTH
_SET_NAME = re.compile(rf"^[rsp][46]:[A-Za-z0-9_.-]{{1,{_MAX_LABEL_LENGTH}}}:{DIGEST}\Z")


def digest(text: str) -> str:
    """Return what stands for a text in the kernel: 120 bits of its SHA-256, in URL-safe base64.

    Whoever may edit a group chooses what rules and sets say. If he found two texts of one digest,
    the first would stay in force for the second: that takes him 2^60 attempts.
    """
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:_DIGEST_BYTES]).decode()


def owns_chain(name: str) -> bool:
    """Tell whether a chain is ours by its name."""
    return name.startswith(CHAIN_PREFIX)


def owns_set(name: str) -> bool:
    """Tell whether a set is ours by its name."""
    return _SET_NAME.match(name) is not None


def interface_chain(interface_id: str) -> str:
    """Name the chain of an interface; ids have at most 21 characters (ruleset._INTERFACE_ID)."""
    return CHAIN_PREFIX + interface_id


def set_name(family: Family, label: str, members: Sequence[str]) -> str:
    """Name a set after its members, which must be canonical and sorted."""
    start = f"{_kind(members)}{family.value}:{_plain(label)}:"
    return start + _digest(start, members)


def spare_name(name: str) -> str:
    """Name the stand-in for one of our sets while its members are put right."""
    start = f"{name[:3]}repair:"
    return start + _digest(start, (name,))


def vouches_for(name: str, members: Sequence[str]) -> bool:
    """Tell whether one of our sets is named after these members, canonical and sorted."""
    return name.endswith(_digest(name, members))


def set_type(name: str) -> str:
    """Return the type of one of our sets, as ipset calls it."""
    return "hash:net,port" if name.startswith(("s4:", "s6:")) else "hash:net"


def has_counters(name: str) -> bool:
    """Tell whether one of our sets has counters, which hold the ports of its sources."""
    return name.startswith(("p4:", "p6:"))


def set_label(name: str) -> str:
    """Return family and label of one of our sets: what stays when its members change."""
    return name.rpartition(":")[0]


def set_family(name: str) -> Family:
    """Return the family of one of our sets."""
    return Family(int(name[1]))


def _kind(members: Sequence[str]) -> str:
    sample = members[0] if members else ""
    return "p" if " " in sample else "s" if "," in sample else "r"


def _digest(name: str, members: Sequence[str]) -> str:
    return digest("\n".join((name[1], set_type(name), *members)))


def _plain(label: str) -> str:
    """Keep what a set name can show without quoting; group names may hold anything else."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", label)[:_MAX_LABEL_LENGTH] or "_"
