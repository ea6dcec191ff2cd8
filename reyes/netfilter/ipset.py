"""IP sets as values, and their `ipset restore` text.

A set is never changed after it was made: other members make another name, hence another set.
"""

from collections.abc import Container, Iterable

from msgspec import Struct

from reyes.net import Family, in_order
from reyes.netfilter import names
from reyes.netfilter.entries import without_everywhere


class IPSet(Struct, frozen=True):
    """A set of one family; its members are entries in canonical form, sorted as text."""

    name: str
    family: Family
    members: tuple[str, ...]

    @property
    def maximum(self) -> int:
        """The number of entries that the kernel lets in: none may join later."""
        return max(1, len(self.members))


def ip_set(family: Family, label: str, members: Iterable[str]) -> IPSet:
    """Make the set of these entries, in any order, where /0 may be among the networks."""
    ordered = tuple(members)
    if not in_order(ordered) or str(family.everywhere) in ordered:
        ordered = tuple(sorted(without_everywhere(ordered)))
    return IPSet(names.set_name(family, label, ordered), family, ordered)


def create_text(sets: Iterable[IPSet], *, with_members: bool = True) -> str:
    """Write the `ipset restore` input that makes these sets; it fails if one exists."""
    text = _one if with_members else _head
    return "".join(text(entry, entry.name) for entry in sets)


def repair_text(sets: Iterable[IPSet], existing: Container[str]) -> str:
    """Write the input that gives existing sets their members back, each in one instant.

    The only place where a set in use is touched: its name stays true, so no rule has to change
    (docs/adr/0004). A stand-in that a killed run left behind is destroyed first.
    """
    text = ""
    for entry in sets:
        spare = names.spare_name(entry.name)
        if spare in existing:
            text += f"destroy {spare}\n"
        text += _one(entry, spare) + f"swap {spare} {entry.name}\ndestroy {spare}\n"
    return text


def _one(entry: IPSet, name: str) -> str:
    return _head(entry, name) + "".join(f"add {name} {member}\n" for member in entry.members)


def _head(entry: IPSet, name: str) -> str:
    family = "inet" if entry.family is Family.V4 else "inet6"
    size = max(64, 1 << (len(entry.members) // 4).bit_length())
    counters = " counters" if names.has_counters(name) else ""
    return (
        f"create {name} {names.set_type(name)} family {family}"
        f" hashsize {size} maxelem {entry.maximum}{counters}\n"
    )
