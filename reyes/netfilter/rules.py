"""Rules that open services to sources: one after the other, and what they are called.

A source is whom a part of a group's rule is open to, in one family. A rule stands for one source,
or for several that share a set.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from msgspec import Struct

from reyes.net import ICMP_OF, Family, Icmp, Service, service_text
from reyes.netfilter import names
from reyes.netfilter.iptables import Goto, Match, Rule, SourceSet, Verdict
from reyes.policy import Allow

PLAIN_RULES = 16
"""Up to so many rules are as cheap to walk one after the other, and easier to read."""

LOOKUPS = 3
"""So many sources of a service are looked up one by one in a list."""

MAX_COMMENT = 200


_INNOCUOUS_ICMP: dict[Family, tuple[tuple[int, str], ...]] = {
    Family.V4: (
        (3, "destination unreachable"),
        (11, "time exceeded"),
        (12, "parameter problem"),
    ),
    Family.V6: (
        (1, "destination unreachable"),
        (2, "packet too big"),
        (3, "time exceeded"),
        (4, "parameter problem"),
        (133, "router solicitation"),
        (134, "router advertisement"),
        (135, "neighbour solicitation"),
        (136, "neighbour advertisement"),
    ),
}
"""Messages without which a network does not work (RFC 792, RFC 4890)."""


class Source(Struct, frozen=True):
    """Whom a part of a rule is open to, in one family; without `match` it is everybody."""

    match: Match | None
    members: tuple[str, ...]
    text: str
    allow: Allow


Item = TypeVar("Item")
Key = TypeVar("Key")
MakeSet = Callable[[str, Iterable[str]], str]
"""Make a set of this label and these members, and return its name."""


def innocuous_icmp(family: Family) -> Iterator[Rule]:
    """Yield the rules that let everybody send what a network does not work without."""
    protocol = ICMP_OF[family]
    for kind, meaning in _INNOCUOUS_ICMP[family]:
        service = Icmp(protocol=protocol, type=kind, code=-1)
        yield Rule((service,), Verdict.RETURN, f"accepted: {protocol} {meaning}")


def plain_rules(sources: Sequence[Source], denied: Rule, make_set: MakeSet) -> tuple[Rule, ...]:
    """Write one rule a source, in the order of the groups' rules; many of one service unite."""
    by_service = grouped(sources, lambda source: source.allow.service)
    rules: list[Rule] = []
    for source in sources:
        same = by_service[source.allow.service]
        matches = {each.match for each in same}
        if len(matches) <= LOOKUPS or None in matches:
            rules.append(rule_for((source,), source.allow.service))
        elif source is same[0]:
            united = union(make_set, members_of_all(same))
            rules.append(rule_for(same, source.allow.service, united))
    return (*rules, denied)


def rule_for(sources: Sequence[Source], service: Service, united: Match | None = None) -> Rule:
    """Write the rule that opens a service to sources of one match, or to all of a union."""
    source = united or sources[0].match
    matches = (service, source) if source else (service,)
    origins = tuple(source.allow for source in sources)
    return Rule(matches, Goto(names.ACCEPT), comment_for(sources, service), origins)


def comment_for(sources: Sequence[Source], service: Service | None = None) -> str:
    """Say which rules of which groups a rule stands for, as far as the space goes.

    `service` is what a rule with several sources opens to all of them, if it is one.
    """
    common = f"{service_text(service)}: " if service and len(sources) > 1 else ""
    text = common
    for number, source in enumerate(sources):
        own = "" if common else f": {service_text(source.allow.service)}"
        rule = f"{source.allow.group.id} rule {source.allow.rule}{own} from {source.text}"
        more = f", {rule}" if number else rule
        if number and len(text) + len(more) > MAX_COMMENT:
            return f"{text} and {len(sources) - number} more"
        text += more
    return text


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return items by what a function says of them, in their order."""
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def union(make_set: MakeSet, members: Iterable[str]) -> Match:
    """Make the set of the members of several sources, and return the match for it."""
    return SourceSet(make_set("union", members))


def members_of_all(sources: Iterable[Source]) -> set[str]:
    """Return the networks of all sources together."""
    return {member for source in sources for member in source.members}
