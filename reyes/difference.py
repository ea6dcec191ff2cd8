"""What changed between two contents."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from reyes.net import service_text
from reyes.ruleset import Content, SecurityGroup
from reyes.text import one_line, quoted

Change = Literal["added", "removed", "changed"]

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


class GroupChange(Struct, frozen=True, kw_only=True):
    """What became of one group; of an added or removed one, all it has or had."""

    change: Change
    region: str
    vpc: str
    id: str
    name: str
    facts: tuple[str, ...]
    rules_added: tuple[str, ...]
    rules_removed: tuple[str, ...]
    members_added: tuple[str, ...]
    members_removed: tuple[str, ...]


class NetworksChange(Struct, frozen=True, kw_only=True):
    """What became of the networks of one VPC or of one prefix list."""

    change: Change
    region: str
    id: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


class Difference(Struct, frozen=True, kw_only=True):
    """All that changed, sorted by region and identifier."""

    settings: tuple[str, ...] = ()
    vpcs: tuple[NetworksChange, ...] = ()
    groups: tuple[GroupChange, ...] = ()
    prefix_lists: tuple[NetworksChange, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything changed."""
        return self != Difference()

    def lines(self) -> Iterator[str]:
        """Write it for people; a whole group that came or went takes one line."""
        for setting in self.settings:
            yield f"~ {setting}"
        for vpc in self.vpcs:
            yield f"{_SIGNS[vpc.change]} VPC {vpc.id} in {vpc.region}"
            yield from _signed("CIDR", vpc.added, vpc.removed)
        for group in self.groups:
            yield from _group_lines(group)
        for entry in self.prefix_lists:
            yield f"{_SIGNS[entry.change]} prefix list {entry.id} in {entry.region}"
            yield from _signed("entry", entry.added, entry.removed)


def compare(before: Content | None, after: Content) -> Difference:
    """Find what changed; None stands for nothing published yet."""
    before = before or Content(
        group_matching=after.group_matching,
        excluded_group_names=after.excluded_group_names,
        regions=(),
    )
    if before == after:
        return Difference()
    old, new = _Index(before), _Index(after)
    found = Difference(
        settings=tuple(_settings(before, after)),
        vpcs=tuple(_networks(old.vpcs, new.vpcs)),
        groups=tuple(_groups(old, new)),
        prefix_lists=tuple(_networks(old.prefix_lists, new.prefix_lists)),
    )
    return found or Difference(settings=("who carries which address, or the form of rules",))


class _Index:
    """One content by identifiers."""

    def __init__(self, content: Content) -> None:
        self.groups = {(r.name, g.id): g for r in content.regions for g in r.groups}
        self.vpcs = {(r.name, v.id): set(v.cidrs) for r in content.regions for v in r.vpcs}
        self.prefix_lists = {
            (r.name, p.id): set(p.cidrs) for r in content.regions for p in r.prefix_lists
        }
        self.members: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for region in content.regions:
            for interface in region.interfaces:
                for group_id in interface.groups:
                    self.members[region.name, group_id].update(interface.addresses)

    def rules(self, key: tuple[str, str]) -> set[str]:
        group = self.groups.get(key)
        return set(self._rule_texts(key[0], group)) if group else set()

    def _rule_texts(self, region: str, group: SecurityGroup) -> Iterator[str]:
        for rule in group.ingress:
            service = service_text(rule.service)
            for peer in (*rule.cidrs, *rule.prefix_lists):
                yield f"{service} from {peer}"
            for reference in rule.groups:
                account = f"{reference.account}/" if reference.account else ""
                known = self.groups.get((region, reference.id))
                name = f" ({quoted(known.name)})" if known else ""
                state = f", peering {quoted(reference.peering)}" if reference.peering else ""
                yield f"{service} from {account}{reference.id}{name}{state}"


def _settings(before: Content, after: Content) -> Iterator[str]:
    if before.group_matching != after.group_matching:
        yield f"group_matching was {before.group_matching}, is {after.group_matching}"
    for name in sorted(set(after.excluded_group_names) - set(before.excluded_group_names)):
        yield f"groups named {name} are excluded"
    for name in sorted(set(before.excluded_group_names) - set(after.excluded_group_names)):
        yield f"groups named {name} are no longer excluded"


def _groups(old: _Index, new: _Index) -> Iterator[GroupChange]:
    for key in sorted(old.groups.keys() | new.groups.keys()):
        group = new.groups.get(key) or old.groups[key]
        facts = tuple(_facts(old.groups.get(key, group), group))
        rules, members = (old.rules(key), new.rules(key)), (old.members[key], new.members[key])
        change = _change(key in old.groups, key in new.groups)
        if change != "changed" or facts or rules[0] != rules[1] or members[0] != members[1]:
            yield GroupChange(
                change=change,
                region=key[0],
                vpc=group.vpc,
                id=group.id,
                name=group.name,
                facts=facts,
                rules_added=tuple(sorted(rules[1] - rules[0])),
                rules_removed=tuple(sorted(rules[0] - rules[1])),
                members_added=tuple(sorted(members[1] - members[0])),
                members_removed=tuple(sorted(members[0] - members[1])),
            )


def _facts(before: SecurityGroup, after: SecurityGroup) -> Iterator[str]:
    """Say what else is new of a group: by its name or its tag it may mean others now."""
    for name in ("name", "tag", "vpc", "account"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            yield one_line(f"{name} was {was or 'none'}, is {now or 'none'}")


def _networks(
    old: Mapping[tuple[str, str], set[str]], new: Mapping[tuple[str, str], set[str]]
) -> Iterator[NetworksChange]:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, set()), new.get(key, set())
        change = _change(key in old, key in new)
        if change != "changed" or before != after:
            yield NetworksChange(
                change=change,
                region=key[0],
                id=key[1],
                added=tuple(sorted(after - before)),
                removed=tuple(sorted(before - after)),
            )


def _change(was: bool, is_there: bool) -> Change:  # noqa: FBT001 - a truth table of two facts
    if was and is_there:
        return "changed"
    return "added" if is_there else "removed"


def _group_lines(group: GroupChange) -> Iterator[str]:
    what = f"{_SIGNS[group.change]} group {quoted(group.name)} ({group.id})"
    title = f"{what} in {group.region} {group.vpc}"
    if group.change == "changed":
        yield title
        yield from (f"  ~ {fact}" for fact in group.facts)
        yield from _signed("rule", group.rules_added, group.rules_removed)
        yield from _signed("member", group.members_added, group.members_removed)
    else:
        rules = len(group.rules_added or group.rules_removed)
        members = len(group.members_added or group.members_removed)
        yield f"{title}: rules {rules}, members {members}"


def _signed(what: str, added: tuple[str, ...], removed: tuple[str, ...]) -> Iterator[str]:
    yield from (f"  + {what} {text}" for text in added)
    yield from (f"  - {what} {text}" for text in removed)
