"""A ruleset in words: pure text for `reyes show`."""

from collections.abc import Iterable, Iterator

from reyes.errors import HostUnknownError
from reyes.matching import GroupKey, GroupMatching
from reyes.net import service_text
from reyes.ruleset import Content, Counts, Ingress, Interface, Region, SecurityGroup
from reyes.text import duration_text, moment_text, quoted
from reyes.trust import Genuine


def describe(genuine: Genuine, now: int) -> Iterator[str]:
    """Yield the lines that tell everything a ruleset says."""
    content = genuine.ruleset.content
    matching = GroupMatching(content)
    yield from _header_lines(genuine, now)
    for region in content.regions:
        members = _members(region)
        yield ""
        yield f"region {region.name}"
        yield from _vpc_lines(region, {vpc.id for vpc in region.vpcs})
        for group in region.groups:
            yield from _group_lines(matching, region, group, members)
        yield from _prefix_list_lines(region, {entry.id for entry in region.prefix_lists})


def describe_instance(genuine: Genuine, instance: str, now: int) -> Iterator[str]:
    """Yield the lines that concern one instance; HostUnknownError if there is none."""
    content = genuine.ruleset.content
    yield from _header_lines(genuine, now)
    known = False
    for region in content.regions:
        own = [interface for interface in region.interfaces if interface.instance == instance]
        if own:
            known = True
            yield ""
            yield f"instance {instance} in region {region.name}"
            yield from _instance_lines(content, region, own)
    if not known:
        raise HostUnknownError(
            f"the ruleset does not know instance {instance}",
            "see whether leader.sources covers its region and VPC",
        )


def _header_lines(genuine: Genuine, now: int) -> Iterator[str]:
    header, content = genuine.ruleset.header, genuine.ruleset.content
    left, age = header.not_after - now, now - header.generated_at
    until = f"in {duration_text(left)}" if left >= 0 else f"expired {duration_text(-left)} ago"
    since = f"{duration_text(abs(age))} {'ago' if age >= 0 else 'ahead of this host'}"
    expiry = genuine.key_expires_at
    lasts = "never expires" if expiry is None else f"expires {moment_text(expiry)}"
    yield f"ruleset {header.serial} for {quoted(header.environment)}"
    yield f"  generated  {moment_text(header.generated_at)} ({since})"
    yield f"  generator  {quoted(header.generator)}"
    yield f"  not after  {moment_text(header.not_after)} ({until})"
    yield f"  signed by  {genuine.signer} (key {lasts})"
    yield f"  content    {genuine.ruleset.content_sha256}"
    yield f"  holds      {counts_text(header.counts)}"
    yield f"  matching   {_matching_text(content)}"
    if content.excluded_group_names:
        yield f"  excluded   {', '.join(map(quoted, content.excluded_group_names))}"


def counts_text(counts: Counts) -> str:
    """Write how large a world is."""
    return ", ".join(
        f"{getattr(counts, field)} {field if field != 'vpcs' else 'VPCs'}"
        for field in counts.__struct_fields__
    )


def _matching_text(content: Content) -> str:
    match content.group_matching:
        case "id":
            return "a group means itself only"
        case "name":
            return "a group means all groups of its name in all VPCs (`default` only itself)"
        case other:
            key = quoted(other.removeprefix("tag:"))
            return f"a group means all groups with the same value of the tag {key} in all VPCs"


def _instance_lines(content: Content, region: Region, own: list[Interface]) -> Iterator[str]:
    matching = GroupMatching(content)
    members = {one.name: _members(one) for one in content.regions}
    groups = {group.id: group for group in region.groups}
    yield from _vpc_lines(region, {interface.vpc for interface in own})
    for interface in own:
        names = [_group_name(groups.get(group), group) for group in interface.groups]
        yield f"  interface {interface.id} in {interface.vpc}: {_list(interface.addresses)}"
        yield f"    groups {_list(names)}"
    carried = {group for interface in own for group in interface.groups}
    rules = [rule for group in region.groups if group.id in carried for rule in group.ingress]
    for group in region.groups:
        if group.id in carried:
            yield from _group_lines(matching, region, group, members[region.name])
    meant: dict[GroupKey, SecurityGroup] = {}
    for reference in (reference for rule in rules for reference in rule.groups):
        meant.update(matching.meant_by(region.name, reference))
    told = {(region.name, identifier) for identifier in carried}
    for (where, identifier), group in sorted(meant.items()):
        if (where, identifier) not in told:
            of_region = "" if where == region.name else f" of {where}"
            yield f"  referenced {_group_name(group, identifier)} in {group.vpc}{of_region}"
            yield f"    members {_list(members[where].get(identifier, ()))}"
    yield from _prefix_list_lines(region, {entry for rule in rules for entry in rule.prefix_lists})


def _vpc_lines(region: Region, wanted: set[str]) -> Iterator[str]:
    for vpc in region.vpcs:
        if vpc.id in wanted:
            yield f"  {vpc.id} of account {vpc.account}: {_list(vpc.cidrs)}"


def _prefix_list_lines(region: Region, wanted: set[str]) -> Iterator[str]:
    for prefix_list in region.prefix_lists:
        if prefix_list.id in wanted:
            yield f"  prefix list {prefix_list.id}: {_list(prefix_list.cidrs)}"


def _group_lines(
    matching: GroupMatching, region: Region, group: SecurityGroup, members: dict[str, list[str]]
) -> Iterator[str]:
    excluded = " (excluded, allows nothing)" if matching.is_excluded(group) else ""
    yield f"  {_group_name(group, group.id)} in {group.vpc}{excluded}"
    for rule in group.ingress:
        sources = _list(_sources(matching, region, rule))
        yield f"    allows {service_text(rule.service)} from {sources}"
    yield f"    members {_list(members.get(group.id, ()))}"


def _sources(matching: GroupMatching, region: Region, rule: Ingress) -> Iterator[str]:
    known = {prefix_list.id for prefix_list in region.prefix_lists}
    yield from rule.cidrs
    for entry in rule.prefix_lists:
        yield f"prefix list {entry}" + ("" if entry in known else " (unknown, matches nobody)")
    for reference in rule.groups:
        named = matching.named_by(region.name, reference)
        name = _group_name(named, reference.id)
        nobody = matching.why_nobody(region.name, reference)
        likeness = matching.likeness(named) if named else None
        if nobody:
            yield f"{name} (nobody: {nobody})"
        elif likeness:
            yield f"{name} and all that match {quoted(likeness)}"
        else:
            yield name


def _group_name(group: SecurityGroup | None, identifier: str) -> str:
    return f"group {quoted(group.name)} ({identifier})" if group else f"group {identifier}"


def _members(region: Region) -> dict[str, list[str]]:
    """Collect the members of each group, each interface's addresses with their holder."""
    members: dict[str, list[str]] = {}
    for interface in region.interfaces:
        text = f"{' '.join(interface.addresses)} ({interface.instance or interface.id})"
        for group in interface.groups:
            members.setdefault(group, []).append(text)
    return members


def _list(items: Iterable[str]) -> str:
    return ", ".join(items) or "nobody"
