"""Where a group is used: who carries it, what it means elsewhere, and which rules let it in."""

from collections.abc import Iterator

from msgspec import Struct

from reyes.explain import Member, member_of
from reyes.matching import GroupKey, GroupMatching
from reyes.net import service_text
from reyes.policy import why_inexpressible
from reyes.ruleset import Content, Ingress, Region, SecurityGroup


class Use(Struct, frozen=True, kw_only=True):
    """A rule that opens a service to the members of a group, and the id by which it names them."""

    region: str
    vpc: str
    group: str
    group_name: str
    rule: int
    service: str
    reference: str


class GroupUse(Struct, frozen=True, kw_only=True):
    """Where a group is used: who carries it, what it means elsewhere, who lets it in."""

    region: str
    vpc: str
    group: str
    group_name: str
    excluded: bool
    members: tuple[Member, ...]
    alike: tuple[str, ...]
    let_in_by: tuple[Use, ...]


def group_uses(content: Content, name: str) -> Iterator[GroupUse]:
    """Describe every group of this name or id."""
    matching = GroupMatching(content)
    uses = _uses_by_group(content, matching)
    for region in content.regions:
        for group in region.groups:
            if name in (group.name, group.id):
                key = (region.name, group.id)
                yield GroupUse(
                    region=region.name,
                    vpc=group.vpc,
                    group=group.id,
                    group_name=group.name,
                    excluded=matching.is_excluded(group),
                    members=tuple(_carriers(region, group)),
                    alike=tuple(
                        f"{other.id} in {other.vpc}, {where}"
                        for (where, _), other in matching.alike(region.name, group).items()
                        if other is not group
                    ),
                    let_in_by=tuple(uses.get(key, ())),
                )


def _uses_by_group(content: Content, matching: GroupMatching) -> dict[GroupKey, list[Use]]:
    uses: dict[GroupKey, list[Use]] = {}
    for region in content.regions:
        for group, number, ingress in _rules(region, matching):
            for reference in ingress.groups:
                use = Use(
                    region=region.name,
                    vpc=group.vpc,
                    group=group.id,
                    group_name=group.name,
                    rule=number,
                    service=service_text(ingress.service),
                    reference=reference.id,
                )
                for key in matching.meant_by(region.name, reference):
                    uses.setdefault(key, []).append(use)
    return uses


def _rules(
    region: Region, matching: GroupMatching
) -> Iterator[tuple[SecurityGroup, int, Ingress]]:
    """Yield the rules of a region that let anything in."""
    for group in region.groups:
        if not matching.is_excluded(group):
            for number, ingress in enumerate(group.ingress, start=1):
                if not why_inexpressible(ingress.service):
                    yield group, number, ingress


def _carriers(region: Region, group: SecurityGroup) -> Iterator[Member]:
    for interface in region.interfaces:
        if group.id in interface.groups:
            for address in interface.addresses:
                yield member_of(region, interface, address, group.id, group.name)
