"""Which groups a reference means: the one it names, and those that count as the same elsewhere.

The configured `group_matching` decides (docs/ruleset-format.md). `default` is never matched by
name, as every VPC has one. Excluded groups are never meant.
"""

from collections.abc import Mapping

from reyes.ruleset import Content, SecurityGroup

GroupKey = tuple[str, str]
"""A region's name and a group's id: ids are unique within their region."""


class GroupMatching:
    """The groups of a content, under the words by which they are matched."""

    def __init__(self, content: Content) -> None:
        self._mode = content.group_matching
        self._excluded = frozenset(content.excluded_group_names)
        self._alike: dict[str, dict[GroupKey, SecurityGroup]] = {}
        for region in content.regions:
            for group in region.groups:
                likeness = self.likeness(group)
                if likeness and not self.is_excluded(group):
                    self._alike.setdefault(likeness, {})[region.name, group.id] = group

    def is_excluded(self, group: SecurityGroup) -> bool:
        """Tell whether a group is not mirrored at all."""
        return group.name in self._excluded

    def meant_by(self, region: str, group: SecurityGroup) -> Mapping[GroupKey, SecurityGroup]:
        """Return the groups that a reference to `group` in `region` means, itself included."""
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
