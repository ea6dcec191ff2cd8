"""The kernel's packet filter, through ipset and iptables: read it, and execute a plan."""

import logging
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from reyes.adapters.backends import (
    Backend,
    holds_rules,
    is_mixed,
    other_backend,
    refuse_mixed,
    refuse_split,
)
from reyes.adapters.commands import PREFIX, read, restore_command, run
from reyes.errors import KernelError, ReyesError
from reyes.net import Family
from reyes.netfilter.counters import Packets, parse_packets
from reyes.netfilter.iptables import Table
from reyes.netfilter.live import (
    LiveKernel,
    LiveSet,
    LiveTable,
    in_one_line_each,
    parse_set_headers,
    parse_set_members,
    parse_table,
)
from reyes.netfilter.plan import (
    CommitPlan,
    CountSets,
    DestroySets,
    FilterTable,
    ReadTables,
    RestoreSets,
    RestoreTable,
    Step,
    carry_out,
)
from reyes.netfilter.restore import revert_text

_ATTEMPTS = 5
_FEW_SETS = 8
"""So many are read one by one: 3 ms each, and all of a large host half a second."""
_FEW_HEADERS = 3
"""So many headers are read one by one: 2 ms each, and those of 200 sets 13 ms."""

_NO_SUCH_SET = "The set with the given name does not exist"
"""What ipset says of it."""

_INCOMPATIBLE = re.compile(r"^# Table .* is incompatible", re.MULTILINE)

log = logging.getLogger(__name__)


def families() -> tuple[Family, ...]:
    """Return the families that this kernel has: IPv6 may be switched off altogether."""
    has_ipv6 = Path("/proc/sys/net/ipv6").exists()
    return (Family.V4, Family.V6) if has_ipv6 else (Family.V4,)


class Kernel:
    """This network namespace's filter tables and sets.

    The tables are those of one of iptables' backends, by default the one that this host uses, and
    of all families or of one.
    """

    def __init__(self, backend: Backend | None = None, family: Family | None = None) -> None:
        self._backend = backend
        self._family = family

    @staticmethod
    def of_backend_in_use(family: Family) -> "Iterator[Kernel]":
        """Yield the table that this host uses, or each backend's if its commands are no guide."""
        if not is_mixed(family):
            yield Kernel(family=family)
            return
        yield Kernel("nft", family)
        if holds_rules(family, "legacy"):  # else reading the table would load it
            yield Kernel("legacy", family)

    @staticmethod
    def of_other_backend(family: Family) -> "Iterator[Kernel]":
        """Yield the table of the backend that this host does not use, if it holds rules."""
        if not is_mixed(family) and holds_rules(family, other_backend(family)):
            yield Kernel(other_backend(family), family)

    def read(self, *, strict: bool = True) -> LiveKernel:
        """Read our sets' headers and both filter tables.

        Unless `strict`, what should keep nobody from the way out is let be: tables that are split
        between backends, and an ipset that is missing or refuses.

        Raises:
            ConfigError: a command is missing or the user has no right to read.
            KernelError: the tables are split between the nft and the legacy backend, or commands
                of both would be used, or one says what cannot be understood.
        """
        if self._backend is None:
            for family in self._families():
                refuse_mixed(family)
        tables = tuple(self._read_table(family) for family in self._families())
        if strict:
            for family in self._families():
                refuse_split(family)
        try:
            return LiveKernel(tables, self._read_sets())
        except ReyesError as error:
            if strict:
                raise
            log.warning("%s: the sets stay as they are", error.message)
            return LiveKernel(tables)

    def read_members(self, names: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        """Read the members of all our sets, a millisecond for 2,000 members, or of those named."""
        if names is None or len(names) > _FEW_SETS:
            members = read(("ipset", "save"), parse_set_members)
            return {name: own for name, own in members.items() if names is None or name in names}
        parts = [read(("ipset", "save", name), parse_set_members) for name in names]
        return {name: own for part in parts for name, own in part.items()}

    def read_packets(self) -> dict[Family, Packets]:
        """Read how many new packets our last chains have accepted and denied."""
        return {
            family: read((*self._save_command(family), "-c"), parse_packets)
            for family in self._families()
        }

    def execute(self, plan: CommitPlan) -> None:
        """Execute a plan's steps in order; if one fails, undo what those before it did.

        Raises:
            KernelError: a step was refused; the rules before are in force.
        """
        carry_out(plan, self._do, self._undo)

    def revert(self, before: LiveKernel, filter_table: FilterTable) -> None:
        """Bring earlier rules back; nothing happens where they are in force.

        Raises:
            KernelError: the kernel refused, for one family at least.
            ConfigError: a command cannot be started.
        """
        refused: ReyesError | None = None
        for table in before.tables:
            try:
                self._revert(table, flush=filter_table == "exclusive")
            except ReyesError as error:
                refused = error
        if refused:
            raise refused

    def _families(self) -> tuple[Family, ...]:
        return (self._family,) if self._family else families()

    def _prefix(self, family: Family) -> str:
        """Return what the names of a family's commands begin with."""
        return f"{PREFIX[family]}-{self._backend}" if self._backend else PREFIX[family]

    def _save_command(self, family: Family) -> tuple[str, ...]:
        return (f"{self._prefix(family)}-save", "-t", "filter")

    def _do(self, step: Step) -> None:
        match step:
            case RestoreSets(text):
                run(("ipset", "restore"), text)
            case CountSets(entries):
                self._count(entries)
            case RestoreTable(family, text, flush=flush):
                run(restore_command(self._prefix(family), flush=flush), text)
            case ReadTables(tables):
                self._check_rules(tables)
            case DestroySets(names):
                self._destroy(names)

    def _undo(self, step: Step) -> None:
        try:
            if isinstance(step, RestoreSets):
                self._destroy(step.created)
            elif isinstance(step, RestoreTable):
                self._revert(step.before, flush=step.flush)
        except ReyesError as error:
            log.critical("could not undo a step: %s", error.message)

    def _revert(self, before: LiveTable, *, flush: bool) -> None:
        """Bring a table back; look again if another program changes it at the same time."""
        for attempt in range(1, _ATTEMPTS + 1):
            text = revert_text(before, self._read_table(before.family), flush=flush)
            if text is None:
                return
            try:
                run(restore_command(self._prefix(before.family), flush=flush), text)
            except KernelError:
                if attempt == _ATTEMPTS:
                    raise
            else:
                return

    def _count(self, entries: Iterable[tuple[str, int]]) -> None:
        expectations = dict(entries)
        live = self._read_sets(expectations)
        for name, expected in expectations.items():
            found = live[name].entries if name in live else 0
            if found != expected:
                raise KernelError(
                    f"set {name} holds {found} entries after it was filled with {expected}",
                    "another program may be changing the sets of Reyes",
                )

    def _check_rules(self, tables: Iterable[Table]) -> None:
        for table in tables:
            if not self._read_table(table.family).shows(table.identities):
                raise KernelError(
                    f"the rules that {PREFIX[table.family]}-restore took are not in force",
                    "another program may be changing the filter table at the same time",
                )

    def _destroy(self, names: Collection[str]) -> None:
        """Destroy those that are there and unused; the rest is for the next run."""
        try:
            live = self._read_sets(names)
            free = [name for name in names if name in live and live[name].references == 0]
            if free:
                run(("ipset", "restore"), "".join(f"destroy {name}\n" for name in free))
        except ReyesError as error:
            log.warning("left sets for the next run: %s", error.message)

    def _read_table(self, family: Family) -> LiveTable:
        return read(self._save_command(family), lambda text: self._parse_table(text, family))

    def _parse_table(self, text: str, family: Family) -> LiveTable:
        if _INCOMPATIBLE.search(text) and _INCOMPATIBLE.search(in_one_line_each(text)):
            raise KernelError(
                f"{PREFIX[family]}-save cannot read the whole filter table",
                "another program made rules with `nft` in the tables of iptables: "
                "move them to a table of their own",
            )
        return parse_table(text, family)

    def _read_sets(self, names: Collection[str] | None = None) -> dict[str, LiveSet]:
        """Read the headers of our sets, of those named at least; who is not there is left out."""
        command = ("ipset", "list", "-terse")
        if names is None or len(names) > _FEW_HEADERS:
            return read(command, parse_set_headers)
        found: dict[str, LiveSet] = {}
        for name in names:
            try:
                found |= read((*command, name), parse_set_headers)
            except KernelError as error:
                if _NO_SUCH_SET not in error.message:
                    raise
        return found
