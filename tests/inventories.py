"""From replies to content in one step, as the leader goes in two."""

from collections.abc import Collection, Iterable

from reyes.inventory import Inventory, merge, view
from reyes.ruleset import Content


def build(inventories: Iterable[Inventory], matching: str, excluded: Collection[str]) -> Content:
    views = [view(inventory, matching, excluded) for inventory in inventories]
    return merge(views, matching, excluded)
