"""HostPolicy -> Dataplane: the chains and sets that a host should have.

    INPUT -> reyes-input      what is never touched returns; what is judged goes on
             reyes-ingress    established, other interfaces, innocuous ICMP, the primary's rules
             reyes-eni-...    the same for other interfaces of the host, of the same groups
             reyes-accept     back to INPUT
             reyes-drop       the end

All ways between our chains are gotos, so the end of `reyes-accept` returns to INPUT, behind the
one jump: an accepted packet goes on to the host's own rules. Reyes only ever narrows.

A packet to an address of no interface (a tunnel's own, a container bridge's) is judged by the
rules of the primary interface, as AWS counts an instance's groups. An address that several
interfaces hold (VPCs may overlap) is the first one's, by device index.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from reyes.host import Failsafe, Host, InterfaceScope, IpsecScope, VpcScope
from reyes.net import (
    Family,
    Network,
    canonical,
    family_of,
    only_family,
    parse_network,
    service_families,
    service_text,
    without,
)
from reyes.netfilter import names
from reyes.netfilter.ipset import IPSet, ip_set
from reyes.netfilter.iptables import (
    Chain,
    DestinationNetwork,
    DestinationSet,
    Established,
    FromIpsec,
    Goto,
    InInterface,
    Log,
    RateLimit,
    Reject,
    Rule,
    SourceNetwork,
    SourceSet,
    Table,
    Verdict,
    referenced_sets,
)
from reyes.netfilter.rules import PLAIN_RULES, Source, grouped, innocuous_icmp, plain_rules
from reyes.netfilter.tree import TreeCompiler
from reyes.policy import Allow, HostPolicy, InterfacePolicy

LINK_LOCAL = parse_network("fe80::/10")
"""Senders on the host's own link (RFC 4291: no router sends their packets on): DHCPv6 is theirs,
and the answer to a multicast is no reply to conntrack."""


_LISTED = 3
"""So many interfaces that share rules are named in a comment."""


class Dataplane(Struct, frozen=True):
    """All that should be in the kernel: sets sorted by name, one table a family."""

    sets: tuple[IPSet, ...]
    tables: tuple[Table, ...]

    @property
    def rule_count(self) -> int:
        """The number of rules of both families."""
        return sum(len(chain.rules) for table in self.tables for chain in table.chains)


def compile_policy(policy: HostPolicy) -> Dataplane:
    """Say a host's policy in the kernel's terms."""
    compilers = [_FamilyCompiler(policy, family) for family in Family]
    tables = tuple(compiler.table() for compiler in compilers)
    sets = {name: entry for compiler in compilers for name, entry in compiler.sets.items()}
    used = referenced_sets(chain for table in tables for chain in table.chains)
    return Dataplane(tuple(sets[name] for name in sorted(used)), tables)


class _Addressed(Struct, frozen=True):
    """An interface with what of one family is sent to it and to none before it.

    The primary gets all that is left, so nothing is said of it.
    """

    interface: InterfacePolicy
    parts: tuple[Network, ...]


class _FamilyCompiler:
    """One family's chains, and the sets that their rules name."""

    def __init__(self, policy: HostPolicy, family: Family) -> None:
        self.sets: dict[str, IPSet] = {}
        self._policy = policy
        self._family = family
        self._source_by_peer: dict[int, Source | None] = {}

    def table(self) -> Table:
        host = self._policy.host
        entry = Chain(names.INPUT, tuple(self._input_rules()))
        if not any(rule.target == Goto(names.INGRESS) for rule in entry.rules):
            return Table(self._family, (entry,))
        primaries, *others = self._interfaces_by_groups()
        first, *branches = self._interface_chains(primaries, 0, names.INGRESS)
        ingress, chains = [_established_rule(host)], list(branches)
        for number, sharing in enumerate(others, start=1):
            own = names.interface_chain(sharing[0].interface.id)
            ingress += self._ways_to(own, sharing)
            chains += self._interface_chains(sharing, number, own)
        chains = [entry, Chain(names.INGRESS, (*ingress, *first.rules)), *chains]
        chains.append(Chain(names.ACCEPT, tuple(_accept_rules(host))))
        chains.append(Chain(names.DROP, tuple(_drop_rules(host))))
        return Table(self._family, tuple(chains))

    def _input_rules(self) -> Iterator[Rule]:
        yield Rule((InInterface("lo"),), Verdict.RETURN, "not judged: loopback")
        for entry in self._policy.host.failsafe:
            if self._is_of_family(entry.network):
                yield _failsafe_rule(entry)
        yield from self._scope_rules()

    def _scope_rules(self) -> Iterator[Rule]:
        judge = Goto(names.INGRESS)
        match self._policy.host.scope:
            case VpcScope(filtered):
                judged = [network for network in filtered if self._is_of_family(network)]
                if judged:
                    yield from self._own_vpc_rules()
                if any(map(LINK_LOCAL.overlaps, judged)):
                    comment = f"not judged: link-local {canonical(LINK_LOCAL)}"
                    yield Rule((SourceNetwork(LINK_LOCAL),), Verdict.RETURN, comment)
                for network in judged:
                    yield Rule(
                        (SourceNetwork(network),), judge, f"judged: from {canonical(network)}"
                    )
            case IpsecScope():
                yield Rule((FromIpsec(),), judge, "judged: out of IPsec")
            case InterfaceScope(interfaces):
                for name in interfaces:
                    yield Rule((InInterface(name),), judge, f"judged: arrives on {name}")

    def _own_vpc_rules(self) -> Iterator[Rule]:
        for vpc in self._policy.vpcs:
            for cidr in vpc.cidrs:
                network = parse_network(cidr)
                if self._is_of_family(network):
                    comment = f"not judged: own VPC {vpc.id} {cidr}"
                    yield Rule((SourceNetwork(network),), Verdict.RETURN, comment)

    def _interfaces_by_groups(self) -> Sequence[Sequence[_Addressed]]:
        """Put interfaces of the same groups together, as they share rules; the primary's first.

        An instance has up to 15, most of which carry the same groups where they serve containers.
        """
        primary, *others = self._policy.interfaces
        taken = list(primary.addresses)
        addressed = [_Addressed(primary, ())]
        for interface in others:
            own = filter(self._is_of_family, interface.addresses)
            parts = tuple(part for address in own for part in without(address, taken))
            if parts:
                addressed.append(_Addressed(interface, parts))
            taken += interface.addresses
        return list(grouped(addressed, lambda each: each.interface.groups).values())

    def _ways_to(self, chain: str, sharing: Sequence[_Addressed]) -> Iterator[Rule]:
        """Tell what is sent to these interfaces: by one look-up if their addresses are many."""
        parts = [part for each in sharing for part in each.parts]
        if len(parts) > PLAIN_RULES:
            name = self._make_set(sharing[0].interface.id, map(canonical, parts))
            yield Rule((DestinationSet(name),), Goto(chain), f"to {_listed(sharing)}")
            return
        for each in sharing:
            for part in each.parts:
                yield Rule((DestinationNetwork(part),), Goto(chain), f"to {each.interface.id}")

    def _interface_chains(
        self, sharing: Sequence[_Addressed], number: int, name: str
    ) -> Iterable[Chain]:
        """Compile the rules of interfaces of the same groups: as a list if few, else as a tree."""
        interface = sharing[0].interface
        sources = [
            source
            for allow in interface.allows
            if self._family in service_families(allow.service)
            for source in self._sources(allow)
        ]
        denied = Rule((), Goto(names.DROP), f"denied: no rule of {_listed(sharing)} allows it")
        if len(sources) <= PLAIN_RULES:
            own = plain_rules(sources, denied, self._make_set)
            return (Chain(name, (*innocuous_icmp(self._family), *own)),)
        return TreeCompiler(self._family, sources, number, denied, self._make_set).chains(name)

    def _sources(self, allow: Allow) -> Iterator[Source]:
        """Say how packets from a peer are told, if any can be; each peer serves many rules."""
        key = id(allow.peer)
        if key not in self._source_by_peer:
            self._source_by_peer[key] = self._source(allow)
        source = self._source_by_peer[key]
        if source:
            yield replace(source, allow=allow)

    def _source(self, allow: Allow) -> Source | None:
        peer = allow.peer
        members = only_family(peer.addresses, self._family)
        everywhere = canonical(self._family.everywhere)
        if everywhere in members:
            return Source(None, (everywhere,), everywhere, allow)
        if len(members) == 1 and peer.name == "cidrs":
            return Source(SourceNetwork(parse_network(members[0])), members, members[0], allow)
        if not members:
            return None
        match = SourceSet(self._make_set(peer.label, members))
        return Source(match, members, peer.name, allow)

    def _make_set(self, label: str, members: Iterable[str]) -> str:
        entry = ip_set(self._family, label, members)
        self.sets[entry.name] = entry
        return entry.name

    def _is_of_family(self, network: Network) -> bool:
        return family_of(network) is self._family


def _listed(sharing: Sequence[_Addressed]) -> str:
    """Name interfaces in a comment, in which 15 of them have no room."""
    ids = [each.interface.id for each in sharing]
    if len(ids) <= _LISTED:
        return ", ".join(ids)
    return f"{', '.join(ids[: _LISTED - 1])} and {len(ids) - _LISTED + 1} more"


def _failsafe_rule(entry: Failsafe) -> Rule:
    comment = f"failsafe: {service_text(entry.service)} from {canonical(entry.network)}"
    return Rule((SourceNetwork(entry.network), entry.service), Verdict.RETURN, comment)


def _accept_rules(host: Host) -> Iterable[Rule]:
    if host.log_accept:
        yield Rule((RateLimit(),), Log("reyes-accept:"), "log_accept")
    yield Rule((), Verdict.RETURN, "accepted: on to the rules behind the jump")


def _drop_rules(host: Host) -> Iterable[Rule]:
    if not host.enforce:
        yield Rule((RateLimit(),), Log(names.AUDIT_LOG), "audit: log")
        yield Rule((), Verdict.RETURN, "audit: would be denied, and is let through")
        return
    if host.log_drop:
        yield Rule((RateLimit(),), Log(names.DROP_LOG), "log_drop")
    target = Verdict.DROP if host.denied == "drop" else Reject()
    yield Rule((), target, "denied")


def _established_rule(host: Host) -> Rule:
    """Let known connections live on, as AWS does, or ask the groups again at each packet.

    Only replies are let through in the strict form: conntrack entries need not be deleted then,
    and must not be, for what the host itself says next may make them anew, as its own.
    """
    if host.established == "strict":
        return Rule((Established(replies_only=True),), Verdict.RETURN, "accepted: replies")
    return Rule((Established(),), Verdict.RETURN, "accepted: established or related")
