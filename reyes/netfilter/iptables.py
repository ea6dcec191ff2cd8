"""Rules, chains and tables as values, and their iptables-restore text.

Every rule carries a comment: what it is for, and an id, the digest of all it says. A kernel whose
chains show the same ids in the same order holds the same rules: `iptables-save` prints rules in
other words than it was given, so its text cannot be compared.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from reyes.net import Everything, Family, Icmp, Network, Ports, Protocol, Service, canonical
from reyes.policy import Allow

LOG_LIMIT = "3/min"
LOG_BURST = 10
"""The gem's limits."""

_PROHIBITED = {Family.V4: "icmp-admin-prohibited", Family.V6: "icmp6-adm-prohibited"}


@dataclass(frozen=True, slots=True)
class InInterface:
    """The packet arrived on this interface; a trailing + matches any ending."""

    name: str


@dataclass(frozen=True, slots=True)
class Source:
    """The packet comes from this network."""

    network: Network


@dataclass(frozen=True, slots=True)
class Destination:
    """The packet goes to this network."""

    network: Network


@dataclass(frozen=True, slots=True)
class SourceSet:
    """The packet comes from a member of this set."""

    name: str


@dataclass(frozen=True, slots=True)
class DestinationSet:
    """The packet goes to a member of this set."""

    name: str


@dataclass(frozen=True, slots=True)
class Established:
    """The packet belongs to a known connection, or tells of one (conntrack).

    `replies_only` leaves out what comes from the side that opened the connection.
    """

    replies_only: bool = False


@dataclass(frozen=True, slots=True)
class FromIpsec:
    """The packet was taken out of IPsec on this host (xt_policy)."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Not more often than the log limit."""


Match = (
    InInterface
    | Source
    | Destination
    | SourceSet
    | DestinationSet
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


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on in another chain; its end returns to whoever jumped here."""

    chain: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse and say so: administratively prohibited."""


@dataclass(frozen=True, slots=True)
class Log:
    """Write the packet to the kernel log and go on with the next rule."""

    prefix: str


Target = Verdict | Goto | Reject | Log


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: if all matches hold, the target happens.

    `origins` are the parts of the policy that it stands for, if it carries any.
    """

    matches: tuple[Match, ...]
    target: Target
    comment: str
    origins: tuple[Allow, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """A named list of rules."""

    name: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Table:
    """Our chains in the filter table of one family."""

    family: Family
    chains: tuple[Chain, ...]

    @cached_property
    def rendered(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """Each rule's id and its `-A` line, by chain, in the order of the chains."""
        return {chain.name: render_chain(chain, self.family) for chain in self.chains}

    def identities(self, chain: str) -> tuple[str, ...]:
        """Return the ids of a chain's rules."""
        return tuple(identity for identity, _ in self.rendered[chain])


def referenced_sets(chains: Iterable[Chain]) -> frozenset[str]:
    """Return the names of the sets that rules of these chains name."""
    return frozenset(
        match.name
        for chain in chains
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, SourceSet | DestinationSet)
    )


def rule_id(text: str) -> str:
    """Return the id of a rule that says `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def render_chain(chain: Chain, family: Family) -> tuple[tuple[str, str], ...]:
    """Return each rule's id and its `-A` line."""
    return tuple(render_rule(chain.name, rule, family) for rule in chain.rules)


def render_rule(chain: str, rule: Rule, family: Family) -> tuple[str, str]:
    """Return a rule's id and its `-A` line."""
    words = [f"-A {chain}"]
    words += filter(None, (_match_text(match) for match in rule.matches))
    target = _target_text(rule.target, family)
    identity = rule_id(" ".join((*words, rule.comment, target)))
    words += [f'-m comment --comment "{rule.comment} #{identity}"', target]
    return identity, " ".join(words)


def _match_text(match: Match) -> str:
    match match:
        case InInterface(name):
            return f"-i {name}"
        case Source(network):
            return f"-s {canonical(network)}"
        case Destination(network):
            return f"-d {canonical(network)}"
        case SourceSet(name):
            return f"-m set --match-set {name} src"
        case DestinationSet(name):
            return f"-m set --match-set {name} dst"
        case Established(replies_only):
            direction = " --ctdir REPLY" if replies_only else ""
            return f"-m conntrack --ctstate ESTABLISHED,RELATED{direction}"
        case FromIpsec():
            return "-m policy --dir in --pol ipsec"
        case RateLimit():
            return f"-m limit --limit {LOG_LIMIT} --limit-burst {LOG_BURST}"
        case _:
            return _service_text(match)


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
