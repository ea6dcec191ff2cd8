"""What the kernel holds now: the text of `iptables-save` and `ipset list` as values."""

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from reyes.net import Family
from reyes.netfilter import names
from reyes.netfilter.entries import as_written
from reyes.netfilter.iptables import way_comment, way_id

BUILTIN_CHAINS = ("INPUT", "FORWARD", "OUTPUT")
JUMP = f"-A INPUT -j {names.INPUT}"
"""Our one rule in a chain of the kernel's, as it is written and as iptables-save prints it."""

_RULE_ID = re.compile(rf" #({names.DIGEST})\"")
_COMMENT = re.compile(rf"--comment \"(.*?) #{names.DIGEST}\"")
_WAY = re.compile(r" -[jg] (reyes-\S+)$")
_SET_REFERENCE = re.compile(r"--match-set (\S+) ")
_OPEN_COMMENT = re.compile(r'--comment "(?:[^"\\\n]++|\\.)*+\n')
_QUOTED_COMMENT = re.compile(r'--comment "(?:[^"\\]++|\\.)*+"')
"""What iptables-save quotes has a backslash before each quote and backslash of its own."""


class LiveTable(Struct, frozen=True):
    """The filter table of one family: each chain's policy (`-` if it has none) and `-A` lines."""

    family: Family
    policies: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def own_chains(self) -> Mapping[str, tuple[str, ...]]:
        """Our chains, and the `-A` lines of each."""
        return {name: self.rules.get(name, ()) for name in self.policies if names.owns_chain(name)}

    def identities(self, chain: str) -> tuple[str, ...]:
        """Return what each rule of a chain is known by, an empty text where it is none of ours."""
        lines = self.rules.get(chain, ())
        found = ((_RULE_ID.search(line), line) for line in lines)
        return tuple(match[1] if match else way_id(line) for match, line in found)

    def shows(self, chains: Mapping[str, tuple[str, ...]]) -> bool:
        """Tell whether our chains are these, by what their rules are known by, and in force."""
        return (
            self.jump_in_place
            and self.own_chains.keys() == chains.keys()
            and all(self.identities(chain) == known_by for chain, known_by in chains.items())
        )

    @property
    def jumps(self) -> Mapping[int, str]:
        """The rules that lead from INPUT to our chains, by their positions there, from 0."""
        return {n: line for n, line in enumerate(self.rules.get("INPUT", ())) if is_jump(line)}

    @property
    def jump_in_place(self) -> bool:
        """Whether our jump is the first rule of INPUT, and the only way to our chains."""
        return self.jumps == {0: JUMP}

    @property
    def foreign(self) -> tuple[str, ...]:
        """What is not ours: rules, chains without rules, and built-in policies but ACCEPT."""
        lines: list[str] = []
        for chain, policy in self.policies.items():
            if names.owns_chain(chain):
                continue
            if chain not in BUILTIN_CHAINS:
                lines.append(f"-N {chain}")
            elif policy != "ACCEPT":
                lines.append(f"-P {chain} {policy}")
        return (*lines, *self._rules_of_others)

    @property
    def entered_by_others(self) -> frozenset[str]:
        """Those of our chains that rules of others lead into, other than by a jump in INPUT."""
        found = map(_WAY.search, self._rules_of_others)
        return frozenset(match[1] for match in found if match)

    @property
    def referenced_sets(self) -> frozenset[str]:
        """The names of the sets that any rule names."""
        lines = (line for rules in self.rules.values() for line in rules)
        return frozenset(match[1] for line in lines if (match := _SET_REFERENCE.search(line)))

    @property
    def _rules_of_others(self) -> list[str]:
        return [
            line
            for chain, rules in self.rules.items()
            if not names.owns_chain(chain)
            for line in rules
            if not (chain == "INPUT" and is_jump(line))
        ]


class LiveSet(Struct, frozen=True):
    """A set in the kernel, without its members."""

    name: str
    entries: int
    references: int


class LiveKernel(Struct, frozen=True):
    """Tables of the families that this host has, and our sets by name."""

    tables: tuple[LiveTable, ...] = ()
    sets: Mapping[str, LiveSet] = field(default_factory=dict)

    @property
    def families(self) -> frozenset[Family]:
        """The families that this host's kernel filters."""
        return frozenset(table.family for table in self.tables)

    @property
    def referenced_sets(self) -> frozenset[str]:
        """The names of the sets that any rule names."""
        return frozenset().union(*(table.referenced_sets for table in self.tables))

    @property
    def judges(self) -> bool:
        """Whether packets of any family come to our chains."""
        return any(table.jumps for table in self.tables)

    @property
    def only_audits(self) -> bool:
        """Whether our last chain lets through what it denies, in any family: audit mode."""
        last = (table.rules.get(names.DROP, ("",))[-1] for table in self.tables)
        return any(line.endswith("-j RETURN") for line in last)

    @property
    def logs_denied(self) -> bool:
        """Whether our last chain logs what it denies, in any family."""
        return any(" -j LOG " in line for t in self.tables for line in t.rules.get(names.DROP, ()))


def nothing_live(families: Iterable[Family]) -> LiveKernel:
    """Stand in for a kernel that may not be read: empty tables, no sets."""
    return LiveKernel(tuple(LiveTable(family) for family in families))


class Generation(Struct, frozen=True):
    """Rules as they were at some time, and the members of the sets that they name, where known.

    Those that were to be `replaced` stayed in force if the rehearsal refused the newer ones.
    """

    kernel: LiveKernel
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replaced: bool = True

    @property
    def referenced_sets(self) -> frozenset[str]:
        """The names of our sets that its rules name."""
        return frozenset(filter(names.owns_set, self.kernel.referenced_sets))


def is_jump(line: str) -> bool:
    """Tell whether a rule leads to the chain where our judgement starts.

    One whose comment has a tab is left to others: it may be a newline (`in_one_line_each`), and
    no command that iptables-restore reads could delete that rule.
    """
    return "\t" not in line and line.endswith((f"-j {names.INPUT}", f"-g {names.INPUT}"))


def comment_of(line: str) -> str:
    """Return what one of our rules says it is for, or the line itself if it is not ours."""
    comment = _COMMENT.search(line)
    if comment:
        return comment[1]
    way = way_id(line)
    return way_comment(way.split()[-1]) if way else line


def in_one_line_each(text: str) -> str:
    """Write a tab for each newline in a comment of `iptables-save` text.

    iptables-save prints it as it is, iptables-restore takes the rest of the comment for another
    line. A tab is as long, changes nothing that the rule does, and can be read back.
    """
    if not _OPEN_COMMENT.search(text):  # so it is nearly always, and quicker
        return text
    return _QUOTED_COMMENT.sub(lambda comment: comment[0].replace("\n", "\t"), text)


def parse_table(text: str, family: Family) -> LiveTable:
    """Read the filter table in `iptables-save` text; an absent table is an empty one.

    ValueError if a line is not a chain's or a rule's.
    """
    policies: dict[str, str] = {}
    rules: dict[str, list[str]] = {}
    last: list[str] = []
    table = ""
    for line in in_one_line_each(text).split("\n"):  # splitlines() would see more line ends
        if line.startswith("*"):
            table = line[1:]
        elif table != "filter":
            continue
        elif line == "COMMIT":
            table = ""
        elif line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            policies[chain] = policy
        elif line.startswith("-A "):
            _, chain, *_ = line.split(None, 2)
            last = rules.setdefault(chain, [])
            last.append(line.rstrip())
        elif last and line and not line.startswith("#"):  # a newline in a name: nothing quotes it
            last[-1] += f"\t{line.rstrip()}"
    return LiveTable(family, policies, {chain: tuple(lines) for chain, lines in rules.items()})


def parse_set_headers(text: str) -> dict[str, LiveSet]:
    """Read our sets from `ipset list -terse` text; ValueError if a line is not a number."""
    found: dict[str, LiveSet] = {}
    name, references = "", 0
    for line in text.splitlines():
        key, _, value = line.partition(": ")
        if key == "Name":
            name = value
        elif key == "References":
            references = int(value)
        elif key == "Number of entries" and names.owns_set(name):
            found[name] = LiveSet(name, int(value), references)
    return found


def parse_set_members(text: str) -> dict[str, tuple[str, ...]]:
    """Read our sets' members, sorted as text, from `ipset save` text.

    ValueError if a member is no network.
    """
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and names.owns_set(words[1]):  # noqa: PLR2004 - verb, set, argument
            members = found.setdefault(words[1], [])
            if words[0] == "add":
                members.append(" ".join((as_written(words[2]), *words[3:])))
    return {name: tuple(sorted(members)) for name, members in found.items()}
