"""Rules, chains and tables as values, and their iptables-restore text.

Rules carry a comment: what they are for, and an id, the digest of all they say. A kernel whose
chains show the same ids in the same order holds the same rules: `iptables-save` prints rules in
other words than it was given, so its text cannot be compared. Rules without a comment have a
`way_id` instead.
"""

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cached_property

from msgspec import Struct

from reyes.net import Everything, Family, Icmp, Network, Ports, Protocol, Service, canonical
from reyes.netfilter import names
from reyes.netfilter.entries import reach_options
from reyes.policy import Allow

LOG_LIMIT = "3/min"
LOG_BURST = 10
"""The gem's limits."""

_WAY = re.compile(r"-A \S+( -p \S+(?: -m \S+ --\S+ (?:\d+:)?(\d+))?)? -g (reyes-\S+)$")
_PROHIBITED = {Family.V4: "icmp-admin-prohibited", Family.V6: "icmp6-adm-prohibited"}


class InInterface(Struct, frozen=True):
    """The packet arrived on this interface; a trailing + matches any ending."""

    name: str


class SourceNetwork(Struct, frozen=True):
    """The packet comes from this network."""

    network: Network


class DestinationNetwork(Struct, frozen=True):
    """The packet goes to this network."""

    network: Network


class SourceSet(Struct, frozen=True):
    """The packet comes from a member of this set."""

    name: str


class SourceServiceSet(Struct, frozen=True):
    """Source and service of the packet together are in this set."""

    name: str


class SourcePortsSet(Struct, frozen=True):
    """The packet comes from a member of this set who may use all ports from first to last."""

    name: str
    first: int
    last: int


class DestinationSet(Struct, frozen=True):
    """The packet goes to a member of this set."""

    name: str


class Established(Struct, frozen=True):
    """The packet belongs to a known connection, or tells of one (conntrack).

    `replies_only` leaves out what comes from the side that opened the connection.
    """

    replies_only: bool = False


class FromIpsec(Struct, frozen=True):
    """The packet was taken out of IPsec on this host (xt_policy)."""


class RateLimit(Struct, frozen=True):
    """Not more often than the log limit."""


SetMatch = SourceSet | SourceServiceSet | SourcePortsSet | DestinationSet
Match = (
    InInterface
    | SourceNetwork
    | DestinationNetwork
    | SetMatch
    | Established
    | FromIpsec
    | RateLimit
    | Ports
    | Icmp
    | Protocol
    | Everything
)


class Verdict(Enum):
    """An end of the walk through a chain, as iptables calls it."""

    RETURN = "RETURN"
    DROP = "DROP"


class Goto(Struct, frozen=True):
    """Go on in another chain; its end returns to whoever jumped here."""

    chain: str


class Reject(Struct, frozen=True):
    """Refuse and say so: administratively prohibited."""


class Log(Struct, frozen=True):
    """Write the packet to the kernel log and go on with the next rule."""

    prefix: str


Target = Verdict | Goto | Reject | Log


class Rule(Struct, frozen=True):
    """One rule: if all matches hold, the target happens.

    `origins` are the parts of the policy that it stands for, if it carries any.

    A rule that goes to another chain may be without its comment in the kernel (`commented`), where
    a comment is a match like any other and the dearest part of such a rule (36 ns of 62 with nft).
    Then a commented rule follows, or it is the last rule and for all packets.
    """

    matches: tuple[Match, ...]
    target: Target
    comment: str
    origins: tuple[Allow, ...] = ()
    commented: bool = True


class Chain(Struct, frozen=True):
    """A named list of rules."""

    name: str
    rules: tuple[Rule, ...]


class Table(Struct, frozen=True, dict=True):
    """Our chains in the filter table of one family."""

    family: Family
    chains: tuple[Chain, ...]

    @cached_property
    def rendered(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """What each rule is known by and its `-A` line, by chain, in the order of the chains."""
        return {chain.name: render_chain(chain, self.family) for chain in self.chains}

    @cached_property
    def identities(self) -> Mapping[str, tuple[str, ...]]:
        """What each rule is known by, by chain."""
        return {
            chain: tuple(identity for identity, _ in rules)
            for chain, rules in self.rendered.items()
        }

    def line(self, chain: str, rule: Rule) -> str:
        """Return the `-A` line of a chain's rule."""
        (rules,) = (each.rules for each in self.chains if each.name == chain)
        return self.rendered[chain][rules.index(rule)][1]


def way_comment(chain: str) -> str:
    """Say in words what a rule does that leads to a chain and carries no comment."""
    return f"see {chain}"


def way_id(line: str) -> str:
    """Return what the line of an uncommented rule is known by, nothing if it can be none of ours.

    That is the last port, if any, and the chain: `0:80 -g reyes-x` is `80 reyes-x`, and
    `all reyes-x` is for all packets. They are what all versions and both backends print alike;
    protocols come back as names.
    """
    found = _WAY.match(line)
    if not found:
        return ""
    service, port, chain = found.groups()
    return " ".join(filter(None, (port if service else "all", chain)))


def referenced_sets(chains: Iterable[Chain]) -> frozenset[str]:
    """Return the names of the sets that rules of these chains name."""
    return frozenset(
        match.name
        for chain in chains
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, SetMatch)
    )


def render_chain(chain: Chain, family: Family) -> tuple[tuple[str, str], ...]:
    """Return what each rule is known by and its `-A` line.

    A commented rule is known by its id, which is also a digest of the uncommented rules right
    before it; an uncommented rule by its `way_id`.
    """
    rendered: list[tuple[str, str]] = []
    uncommented: list[str] = []
    for rule in chain.rules:
        matches = filter(None, map(_match_text, rule.matches))
        target = _target_text(rule.target, family)
        words = (f"-A {chain.name}", *matches)
        if rule.commented:
            identity = names.digest(" ".join((*uncommented, *words, rule.comment, target)))
            uncommented = []
            comment = f'-m comment --comment "{rule.comment} #{identity}"'
            rendered.append((identity, " ".join((*words, comment, target))))
        else:
            line = " ".join((*words, target))
            uncommented.append(line)
            rendered.append((way_id(line), line))
    return tuple(rendered)


def _match_text(match: Match) -> str:
    match match:
        case InInterface(name):
            return f"-i {name}"
        case SourceNetwork(network):
            return f"-s {canonical(network)}"
        case DestinationNetwork(network):
            return f"-d {canonical(network)}"
        case SourceSet() | SourceServiceSet() | SourcePortsSet() | DestinationSet():
            return f"-m set --match-set {match.name} {_set_options(match)}"
        case Established(replies_only):
            direction = " --ctdir REPLY" if replies_only else ""
            return f"-m conntrack --ctstate ESTABLISHED,RELATED{direction}"
        case FromIpsec():
            return "-m policy --dir in --pol ipsec"
        case RateLimit():
            return f"-m limit --limit {LOG_LIMIT} --limit-burst {LOG_BURST}"
        case _:
            return _service_text(match)


def _set_options(match: SetMatch) -> str:
    match match:
        case SourceSet():
            return "src"
        case SourceServiceSet():
            return "src,dst"
        case SourcePortsSet(_, first, last):
            return f"src {reach_options(first, last)}"
        case DestinationSet():
            return "dst"


def _service_text(service: Service) -> str:
    match service:
        case Ports(protocol, first, last):
            return f"-p {protocol} -m {protocol} --dport {first}:{last}"
        case Icmp(protocol, type=-1):
            return f"-p {protocol}"
        case Icmp(protocol, kind, code):
            module = "icmp" if protocol == "icmp" else "icmp6"
            number = str(kind) if code == -1 else f"{kind}/{code}"
            return f"-p {protocol} -m {module} --{protocol}-type {number}"
        case Protocol(number):
            return f"-p {number}"
        case Everything():
            return ""


def _target_text(target: Target, family: Family) -> str:
    match target:
        case Verdict():
            return f"-j {target.value}"
        case Goto(chain):
            return f"-g {chain}"
        case Reject():
            return f"-j REJECT --reject-with {_PROHIBITED[family]}"
        case Log(prefix):
            return f'-j LOG --log-prefix "{prefix} "'
