"""What a kernel shows if nothing has changed since the last good pass.

Enough to tell that nothing is to be done, without the ruleset: decoding and compiling it again
costs more than all the rest of a pass.
"""

from collections.abc import Mapping

from msgspec import Struct

from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.names import set_family
from reyes.netfilter.plan import FilterTable, is_right


class Settled(Struct, frozen=True, kw_only=True):
    """What the rules of each chain are known by, by IP version and chain, and how large sets are.

    `key` stands for all that they were compiled from, until the signing key expires, and
    `content_sha256` for the ruleset among that.
    """

    key: str
    content_sha256: str
    until: int | None
    chains: Mapping[str, Mapping[str, tuple[str, ...]]]
    sets: Mapping[str, int]

    def shown_by(self, live: LiveKernel, filter_table: FilterTable) -> bool:
        """Tell whether a kernel shows just this."""
        return self.rules_shown_by(live, filter_table) and all(
            name in live.sets and live.sets[name].entries == entries
            for name, entries in self.sets.items()
            if set_family(name) in live.families
        )

    def rules_shown_by(self, live: LiveKernel, filter_table: FilterTable = "shared") -> bool:
        """Tell whether a kernel shows just these rules, whatever its sets hold."""
        return all(
            is_right(self.chains.get(str(table.family.value), {}), table, filter_table)
            for table in live.tables
        )


def settle(dataplane: Dataplane, key: str, content_sha256: str, until: int | None) -> Settled:
    """Describe what a kernel shows with this dataplane in force."""
    return Settled(
        key=key,
        content_sha256=content_sha256,
        until=until,
        chains={str(table.family.value): table.identities for table in dataplane.tables},
        sets={entry.name: len(entry.members) for entry in dataplane.sets},
    )
