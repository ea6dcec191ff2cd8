"""What a kernel shows if nothing has changed since the last good pass.

Enough to tell that nothing is to be done, without the ruleset: decoding and compiling it again
costs more than all the rest of a pass.
"""

from collections.abc import Mapping

from msgspec import Struct

from reyes.net import Family
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.live import LiveKernel, LiveTable
from reyes.netfilter.plan import FilterTable


class Settled(Struct, frozen=True, kw_only=True):
    """What the rules of each chain of each family (by IP version) are known by, and sets' entries.

    `key` stands for all that they were compiled from.
    """

    key: str
    chains: Mapping[str, Mapping[str, tuple[str, ...]]]
    sets: Mapping[str, int]

    def shown_by(self, live: LiveKernel, filter_table: FilterTable) -> bool:
        """Tell whether a kernel shows just this."""
        return (
            all(self._table_shown(table, filter_table) for table in live.tables)
            and {str(family.value) for family in live.families} <= self.chains.keys()
            and all(
                name in live.sets and live.sets[name].entries == entries
                for name, entries in self.sets.items()
                if Family(int(name[1])) in live.families
            )
        )

    def _table_shown(self, table: LiveTable, filter_table: FilterTable) -> bool:
        chains = self.chains.get(str(table.family.value), {})
        return (
            table.jumps_right
            and set(table.own_chains) == chains.keys()
            and all(table.identities(name) == identities for name, identities in chains.items())
            and not (filter_table == "exclusive" and table.foreign)
        )


def settle(dataplane: Dataplane, key: str) -> Settled:
    """Describe what a kernel shows with this dataplane in force."""
    return Settled(
        key=key,
        chains={
            str(table.family.value): {chain: table.identities(chain) for chain in table.rendered}
            for table in dataplane.tables
        },
        sets={entry.name: len(entry.members) for entry in dataplane.sets},
    )
