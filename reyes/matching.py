"""Which groups a reference means: the one it names, and those that count as the same elsewhere.

The configured `group_matching` decides (docs/ruleset-format.md). `default` is never matched by
name, as every VPC has one. Excluded groups are never meant.
"""

from collections.abc import Mapping

from reyes.ruleset import Content, GroupReference, SecurityGroup
from reyes.text import quoted

GroupKey = tuple[str, str]
"""A region's name and a group's id: ids are unique within their region."""


class GroupMatching:
    """The groups of a content, under the words by which they are matched."""

    def __init__(self, content: Content) -> None:
        self._mode = content.group_matching
        self._excluded = frozenset(content.excluded_group_names)
        self._groups = {
            (region.name, group.id): group for region in content.regions for group in region.groups
        }
        self._alike: dict[str, dict[GroupKey, SecurityGroup]] = {}
        for key, group in self._groups.items():
            likeness = self.likeness(group)
            if likeness and not self.is_excluded(group):
                self._alike.setdefault(likeness, {})[key] = group

    def is_excluded(self, group: SecurityGroup) -> bool:
        """Tell whether a group is not mirrored at all."""
        return group.name in self._excluded

    def named_by(self, region: str, reference: GroupReference) -> SecurityGroup | None:
        """Return the group of the id that a reference in `region` names, if it is known."""
        return self._groups.get((region, reference.id))

    def why_nobody(self, region: str, reference: GroupReference) -> str | None:
        """Say why a reference in `region` matches nobody, if so."""
        if reference.peering is not None:
            return f"stale: its VPC peering connection is {quoted(reference.peering)}"
        named = self.named_by(region, reference)
        if named is None:
            owner = f" (account {reference.account})" if reference.account else ""
            return f"no such group{owner} in what the leader reads of {region}"
        return f"{named.name!r} is excluded" if self.is_excluded(named) else None

    def meant_by(self, region: str, reference: GroupReference) -> Mapping[GroupKey, SecurityGroup]:
        """Return the groups that a reference in `region` means; none if it matches nobody."""
        named = self.named_by(region, reference)
        if named is None or self.why_nobody(region, reference):
            return {}
        return self.alike(region, named)

    def alike(self, region: str, group: SecurityGroup) -> Mapping[GroupKey, SecurityGroup]:
        """Return the groups that count as one with `group` of `region`, itself included."""
        if self.is_excluded(group):
            return {}
        likeness = self.likeness(group)
        return {(region, group.id): group, **(self._alike[likeness] if likeness else {})}

    def likeness(self, group: SecurityGroup) -> str | None:
        """Return the word that makes groups count as one, if there is one.

        An empty tag is no such word: it would join all groups that somebody tagged carelessly.
        """
        match self._mode:
            case "name":
                return None if group.name == "default" else group.name
            case "id":
                return None
            case _:
                return group.tag
