"""A packet filter in memory: what iptables and ipset do, as far as Reyes asks.

It refuses what the kernel refuses, and a refused iptables-restore changes nothing at all, while a
refused `ipset restore` leaves what it did before. As in the kernel, rules are given back in other
words than they came in.
"""

import re
from collections.abc import Callable, Collection, Iterable
from copy import deepcopy
from dataclasses import dataclass, field

from reyes.errors import KernelError
from reyes.net import Family
from reyes.netfilter.live import (
    BUILTIN_CHAINS,
    LiveKernel,
    LiveTable,
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

_TARGET = re.compile(r" -[jg] (\S+)")
_MATCH_SET = re.compile(r"--match-set (\S+) ")
_COMMENT = re.compile(r'--comment "([^"]*)"')
_VERDICTS = {"ACCEPT", "DROP", "RETURN", "REJECT", "LOG"}
_WIDE = {Family.V4: ("inet", "/32"), Family.V6: ("inet6", "/128")}


@dataclass
class _Chain:
    policy: str = "-"
    rules: list[str] = field(default_factory=list)


@dataclass
class _Set:
    head: str
    capacity: int
    members: dict[str, str] = field(default_factory=dict)


_Table = dict[str, _Chain]


class MemoryKernel:
    """A `reyes.world.Kernel` and the far side of its commands; `refuses` picks steps that fail."""

    def __init__(self, families: Iterable[Family] = tuple(Family)) -> None:
        self.tables: dict[Family, _Table] = {
            family: {chain: _Chain("ACCEPT") for chain in BUILTIN_CHAINS} for family in families
        }
        self.sets: dict[str, _Set] = {}
        self.executed: list[CommitPlan] = []
        self.refuses: Callable[[Step], bool] = lambda _: False

    def read(self, *, strict: bool = True) -> LiveKernel:  # noqa: ARG002 - it has one backend
        tables = tuple(parse_table(self.save(family), family) for family in self.tables)
        return LiveKernel(tables, parse_set_headers(self.ipset_list()))

    def read_members(self, names: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        members = parse_set_members(self.ipset_save())
        _require(members.keys() >= set(names or ()), "a set is not there")
        return {name: own for name, own in members.items() if names is None or name in names}

    def execute(self, plan: CommitPlan) -> None:
        self.executed.append(plan)
        carry_out(plan, self._do_or_refuse, self._undo)

    def revert(self, before: LiveKernel, filter_table: FilterTable) -> None:
        for table in before.tables:
            self._revert(table, flush=filter_table == "exclusive")

    def _do_or_refuse(self, step: Step) -> None:
        _require(not self.refuses(step), "refused")
        self._do(step)

    def save(self, family: Family) -> str:
        table = self.tables[family]
        heads = [f":{name} {chain.policy} [7:420]" for name, chain in table.items()]
        rules = [rule for chain in table.values() for rule in chain.rules]
        return "\n".join(("# Generated", "*filter", *heads, *rules, "COMMIT", "# Completed", ""))

    def ipset_list(self) -> str:
        return "\n".join(
            f"Name: {name}\nType: hash:net\nRevision: 7\nHeader: {one.head}\n"
            f"Size in memory: 504\nReferences: {self._references(name)}\n"
            f"Number of entries: {len(one.members)}\n"
            for name, one in self.sets.items()
        )

    def ipset_save(self) -> str:
        return "".join(
            f"create {name} {one.head}\n"
            + "".join(f"add {name} {member}{flag}\n" for member, flag in one.members.items())
            for name, one in self.sets.items()
        )

    def restore(self, family: Family, text: str, *, flush: bool = False) -> None:
        """What `iptables-restore` does with a text, all of it or nothing."""
        before = self.tables[family]
        table = deepcopy(before)
        if flush:
            table = {chain: _Chain(before[chain].policy) for chain in BUILTIN_CHAINS}
        lines = text.splitlines()
        _require((lines[0], lines[-1]) == ("*filter", "COMMIT"), "not one transaction")
        for line in lines[1:-1]:
            self._restore_line(table, line, family)
        self.tables[family] = table

    def ipset(self, text: str) -> None:
        """What `ipset restore` does with a text, line by line."""
        for line in text.splitlines():
            verb, name, *rest = line.split()
            _require(len(name) <= 31, f"name too long: {name}")
            match verb:
                case "create":
                    _require(name not in self.sets, f"exists: {name}")
                    self.sets[name] = _Set(" ".join(rest), int(rest[rest.index("maxelem") + 1]))
                case "add":
                    self._add(self.sets[name], rest[0], " ".join(["", *rest[1:]]))
                case "swap":
                    _require({name, rest[0]} <= self.sets.keys(), f"missing: {line}")
                    one, other = self.sets[name], self.sets[rest[0]]
                    _require(one.head.split()[0] == other.head.split()[0], f"types: {line}")
                    self.sets[name], self.sets[rest[0]] = self.sets[rest[0]], self.sets[name]
                case "destroy":
                    _require(name in self.sets and not self._references(name), f"in use: {name}")
                    del self.sets[name]
                case _:
                    _require(False, f"unknown: {line}")

    def _do(self, step: Step) -> None:
        match step:
            case RestoreSets(text):
                self.ipset(text)
            case CountSets(entries):
                for name, expected in entries:
                    _require(len(self.sets[name].members) == expected, f"count of {name}")
            case RestoreTable(family, text, flush=flush):
                self.restore(family, text, flush=flush)
            case ReadTables(tables):
                for table in tables:
                    live = parse_table(self.save(table.family), table.family)
                    _require(live.shows(table.identities), "not in force")
            case DestroySets(names):
                self._destroy(names)

    def _undo(self, step: Step) -> None:
        if isinstance(step, RestoreSets):
            self._destroy(step.created)
        elif isinstance(step, RestoreTable):
            self._revert(step.before, flush=step.flush)

    def _revert(self, before: LiveTable, *, flush: bool) -> None:
        now = parse_table(self.save(before.family), before.family)
        text = revert_text(before, now, flush=flush)
        if text is not None:
            self.restore(before.family, text, flush=flush)

    def _destroy(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self.sets and not self._references(name):
                del self.sets[name]

    def _references(self, name: str) -> int:
        rules = (r for table in self.tables.values() for c in table.values() for r in c.rules)
        return sum(f"--match-set {name} " in rule for rule in rules)

    def _add(self, one: _Set, member: str, flag: str) -> None:
        _require(member not in one.members, f"already added: {member}")
        _require(len(one.members) < one.capacity, "the set is full")
        network, comma, _ = member.partition(",")
        _require(
            bool(comma) == one.head.startswith("hash:net,port "), f"of another type: {member}"
        )
        _require(not network.endswith("/0"), f"hash:net takes no {member}")
        _require("packets" not in flag or one.head.endswith(" counters"), f"no counters: {member}")
        _require((":" in network) == ("inet6" in one.head), f"of another family: {member}")
        one.members[member] = flag

    def _restore_line(self, table: _Table, line: str, family: Family) -> None:
        if line.startswith(":"):
            name, policy, _ = line[1:].split()
            _require(len(name) <= 28, f"chain name too long: {name}")
            table[name] = _Chain(policy, table[name].rules if name in BUILTIN_CHAINS else [])
            return
        verb, name, *_ = line.split()
        _require(name in table, f"no chain: {line}")
        match verb:
            case "-A":
                table[name].rules.append(self._rule(table, line, family))
            case "-I":
                _, _, position, body = line.split(" ", 3)
                rule = self._rule(table, f"-A {name} {body}", family)
                _require(int(position) <= len(table[name].rules) + 1, f"index too big: {line}")
                table[name].rules.insert(int(position) - 1, rule)
            case "-D":
                rule = _saved(line.replace("-D", "-A", 1), family)
                _require(rule in table[name].rules, f"no such rule: {line}")
                table[name].rules.remove(rule)
            case "-X":
                users = [r for c in table.values() for r in c.rules if _target(r) == name]
                _require(not users and not table[name].rules, f"in use: {line}")
                del table[name]
            case _:
                _require(False, f"unknown: {line}")

    def _rule(self, table: _Table, line: str, family: Family) -> str:
        target = _target(line)
        _require(target is None or target in table or target in _VERDICTS, f"no target: {line}")
        for name in _MATCH_SET.findall(line):
            _require(name in self.sets, f"no set: {line}")
            wanted = _WIDE[family][0]
            _require(f"family {wanted} " in self.sets[name].head, f"other family: {line}")
        for comment in _COMMENT.findall(line):
            _require(len(comment.encode()) <= 255, f"comment too long: {line}")
        return _saved(line, family)


def _target(rule: str) -> str | None:
    found = _TARGET.search(_COMMENT.sub("", rule))
    return found[1] if found else None


def _saved(line: str, family: Family) -> str:
    """Say a rule in iptables-save's words: addresses first, single ports alone, not all ports."""
    chain = " ".join(line.split(" ", 2)[:2])
    body = line[len(chain) :]
    first = ""
    for option in ("-s", "-d", "-i", "-p"):
        if found := re.search(rf" {option} (\S+)", body):
            body = body.replace(found[0], "", 1)
            value = found[1]
            if option in ("-s", "-d"):
                value += "" if "/" in value else _WIDE[family][1]
            first += "" if value in ("0.0.0.0/0", "::/0") else f" {option} {value}"
    body = body.replace(" --dport 0:65535 ", " ")
    return chain + first + re.sub(r"--dport (\d+):\1\b", r"--dport \1", body)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise KernelError(message)
