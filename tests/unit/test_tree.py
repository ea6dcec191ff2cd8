"""The form of the tree: the chains and look-ups on a packet's way, which are what it costs."""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from itertools import pairwise, product
from random import Random
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from reyes.net import Everything, Family, Icmp, Ports, Protocol, Service
from reyes.netfilter import names, port_sets, tree
from reyes.netfilter.changes import describe_changes
from reyes.netfilter.compiler import compile_policy
from reyes.netfilter.entries import with_reach
from reyes.netfilter.evaluate import Evaluator, Packet
from reyes.netfilter.iptables import (
    Chain,
    Goto,
    Match,
    Rule,
    SourcePortsSet,
    SourceServiceSet,
    SourceSet,
    Verdict,
)
from reyes.netfilter.plan import drifted_sets, plan_commit
from reyes.netfilter.rules import Source
from reyes.netfilter.tree import TreeCompiler
from reyes.policy import Allow, Peer
from reyes.ruleset import SecurityGroup
from tests.bench.shapes import ADDRESS, SHAPES, Shape, members_of, policy_with, rules_of
from tests.fakes.memory_kernel import MemoryKernel
from tests.worlds import tcp

NFT_CHAINS = 16
"""So many chains nft lets lead into each other (NFT_JUMP_STACK_SIZE)."""


def compiled(rules: Sequence[tuple[Service, int]]) -> dict[str, Chain]:
    """The IPv4 chains for rules: a service, and the number of the group it is open to."""
    table, _ = compile_policy(policy_with(rules)).tables
    return {chain.name: chain for chain in table.chains}


def icmp_rules(chains: dict[str, Chain]) -> list[Rule]:
    """What the chain of ICMP says behind the messages that everybody may send."""
    always, rest = chains["reyes-0-icmp"].rules[:3], chains["reyes-0-icmp"].rules[3:]
    assert [rule.target for rule in always] == [Verdict.RETURN] * 3
    return list(rest)


def ways(chains: dict[str, Chain], name: str) -> Iterator[tuple[str, ...]]:
    """Every way from a chain to an end, as the names of the chains on it."""
    below = {rule.target.chain for rule in chains[name].rules if isinstance(rule.target, Goto)}
    if not below:
        yield (name,)
    for each in below:
        yield from ((name, *way) for way in ways(chains, each))


def is_look_up(rule: Rule) -> bool:
    return any(isinstance(match, SourceSet | SourcePortsSet) for match in rule.matches)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thousand_rules_are_few_chains_deep(shape: Shape) -> None:
    chains = compiled(rules_of(shape, 1000))
    assert max(map(len, ways(chains, names.INPUT))) < NFT_CHAINS
    assert max(map(len, chains)) <= names.MAX_CHAIN_LENGTH


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rule_with_an_id_vouches_for_all_ways(shape: Shape) -> None:
    for chain in compiled(rules_of(shape, 1000)).values():
        *others, last = chain.rules
        if not last.commented:  # nothing else can be said of it
            assert (last.matches, last.target) == ((), Goto(names.DROP))
            assert others[-1].commented


def most_asked(rules: Iterable[Rule]) -> int:
    """How many sets at most are asked about one packet that meets these rules, and no others."""
    asked = [rule for rule in rules if is_look_up(rule)]
    ports = [match for rule in asked for match in rule.matches if isinstance(match, Ports)]
    of_all = sum(Everything() in rule.matches for rule in asked)
    meeting = (sum(p.first <= port.first <= p.last for p in ports) for port in ports)
    return of_all + max(meeting, default=0)


def met_on(way: tuple[str, ...], chains: dict[str, Chain]) -> Iterator[Rule]:
    """The rules that a packet meets and that do not lead it on."""
    for name, following in pairwise(way):
        for rule in chains[name].rules:
            if rule.target == Goto(following):
                break
            yield rule


def most_look_ups(rules: Sequence[tuple[Service, int]]) -> int:
    chains = compiled(rules)
    return max(most_asked(met_on(way, chains)) for way in ways(chains, names.INPUT))


NESTED = {
    "each within the one before": [tcp(n + 1, 65_535 - n) for n in range(1000)],
    "of one beginning": [tcp(1, 100 + 3 * n) for n in range(1000)],
    "of few beginnings": [tcp(1 + n % 7, 65_535 - n) for n in range(1000)],
}
RANGES: dict[str, Sequence[Service]] = {
    **NESTED,
    "of ten ports to a third": [s for s, _ in rules_of("ranges of 1,000 groups", 1000)],
    "between any two ports": [s for s, _ in rules_of("wide ranges of 1,000 groups", 1000)],
    "each a bit behind the one before": [tcp(1 + 30 * n, 20_000 + 30 * n) for n in range(1000)],
}


@pytest.mark.parametrize("groups", [50, 300, 1000])
@pytest.mark.parametrize("services", RANGES.values(), ids=RANGES)
def test_a_thousand_ranges_take_one_look_up_of_few_members(
    services: Sequence[Service], groups: int
) -> None:
    rules = [(service, number % groups) for number, service in enumerate(services)]
    assert most_look_ups(rules) == 1
    members = sum(len(entry.members) for entry in compile_policy(policy_with(rules)).sets)
    assert members < 60_000


def test_a_stretch_with_two_look_ups_has_a_rule_for_each() -> None:
    rules = [(tcp(10, 19), 1), (tcp(30, 39), 1), (tcp(15, 35), 2), (tcp(12, 50), 3)]
    rules += [(tcp(100 + 2 * n), 4) for n in range(17)]
    with patch.object(port_sets, "PORT_LOOKUPS", (2,)):
        assert most_look_ups(rules) == 2
        evaluator = Evaluator(compile_policy(policy_with(rules)))
    check_ports(evaluator, rules, (9, 10, 19, 20, 30, 35, 36, 39, 40, 50, 51))


def check_ports(
    evaluator: Evaluator, rules: Sequence[tuple[Ports, int]], ports: Iterable[int]
) -> None:
    """Each group may use what a rule opens to it, and nothing else."""
    for port, group in product(ports, (1, 2, 3)):
        packet = Packet(
            source=ip_address(members_of(group)[0]),
            destination=ip_address(ADDRESS),
            protocol=6,
            port=port,
        )
        opened = any(s.first <= port <= s.last for s, number in rules if number == group)
        assert evaluator.walk(packet).decision == ("accepted" if opened else "denied")


@pytest.mark.parametrize("seed", range(20))
def test_ranges_that_touch_and_overlap_are_open_to_their_own_groups(seed: int) -> None:
    lot = Random(seed)
    firsts = [lot.randint(10, 60) for _ in range(20)]
    rules = [(tcp(first, first + lot.randint(0, 4)), lot.randint(1, 3)) for first in firsts]
    check_ports(Evaluator(compile_policy(policy_with(rules))), rules, range(9, 66))


def test_a_rule_for_the_own_set_of_a_source_speaks_of_it_alone() -> None:
    rules = [(tcp(100 + 2 * n), (n + k) % 3) for n in range(20) for k in (0, 1)]
    with patch.object(port_sets, "PORT_MEMBERS", 45):
        chains = compiled(rules)
    asked = [rule for chain in chains.values() for rule in chain.rules if is_look_up(rule)]
    assert len(asked) == len(rules)
    for rule in asked:
        (allow,) = rule.origins
        (own,) = (match for match in rule.matches if isinstance(match, SourceSet))
        peer = allow.peer
        assert own.name == names.set_name(Family.V4, peer.label, peer.addresses)
        assert rule.comment.endswith(f"from {allow.peer.name}")


SEVENTEEN_PORTS = [(tcp(100 + 2 * n), 4) for n in range(17)]
"""Enough to make a tree of any other rules."""


def look_ups_of(rules: Sequence[tuple[Service, int]]) -> dict[Ports, type[Match]]:
    """What each stretch of ports is looked up in."""
    return {
        ports: type(look_up)
        for chain in compiled([*rules, *SEVENTEEN_PORTS]).values()
        for rule in chain.rules
        if rule.target == Goto(names.ACCEPT)
        for ports, look_up in [rule.matches]
        if isinstance(ports, Ports)
    }


def test_ports_of_one_source_beside_shared_ones_are_told_by_the_same_set() -> None:
    found = look_ups_of(
        [
            (tcp(1, 8), 1),
            (tcp(10, 30), 1),
            (tcp(20, 50), 2),
            (tcp(40, 60), 3),
            (tcp(61, 70), 3),
            (tcp(71), 4),
            (tcp(72, 80), 3),
        ]
    )
    alone = [tcp(10, 19), tcp(31, 39), tcp(51, 60), tcp(61, 70)]
    for ports in (*alone, tcp(20, 30), tcp(40, 50)):
        assert found[ports] is SourcePortsSet
    for ports in (tcp(1, 8), tcp(71), tcp(72, 80)):
        assert found[ports] is SourceSet


def test_ports_of_everybody_beside_shared_ones_are_not_looked_up() -> None:
    opened = [(1, tcp(10, 30)), (2, tcp(20, 50)), (3, tcp(40, 60)), (3, tcp(61, 70))]
    sources = [
        Source(
            SourceSet(f"r4:app-{number}:0123456789abcdefghij"),
            (f"10.0.0.{number}",),
            "",
            replace(ANYBODY, service=service),
        )
        for number, service in opened
    ]
    free = replace(ANYBODY, service=tcp(61, 70))
    sources.append(Source(None, ("0.0.0.0/0",), "", free))
    denied = Rule((), Goto(names.DROP), "denied")
    chains = TreeCompiler(Family.V4, sources, 0, denied, lambda *_: "p4:x").chains("first")
    matches = [rule.matches for chain in chains for rule in chain.rules]
    assert (tcp(40, 50), SourcePortsSet("p4:x", 40, 50)) in matches
    assert (tcp(61, 70),) in matches


def test_ports_beside_those_that_several_look_ups_tell_have_the_own_set() -> None:
    ranges = [(tcp(10, 19), 1), (tcp(30, 39), 1), (tcp(15, 35), 2), (tcp(12, 50), 3)]
    with patch.object(port_sets, "PORT_LOOKUPS", (2,)):
        found = look_ups_of(ranges)
    assert found[tcp(40, 50)] is SourceSet


def test_a_reach_is_all_that_a_member_may_use_without_a_gap() -> None:
    rules = [(tcp(10, 19), 1), (tcp(20, 39), 1), (tcp(25, 49), 2), (tcp(30, 34), 3)]
    sets = compile_policy(policy_with([*rules, *((tcp(100 + 2 * n), 4) for n in range(17))])).sets
    (ports,) = (entry for entry in sets if entry.name.startswith("p4:"))
    assert ports.members == tuple(
        sorted(
            with_reach(member, first, last)
            for number, first, last in ((1, 10, 39), (2, 25, 49), (3, 30, 34))
            for member in members_of(number)
        )
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thousand_rules_take_a_look_up_for_the_port_and_one_for_all_traffic(
    shape: Shape,
) -> None:
    assert most_look_ups(rules_of(shape, 1000)) == (2 if shape == "mixed protocols" else 1)


TO_THE_LAST_PORT = [tcp(1024 + 3 * n, 65_535) for n in range(996)]


@pytest.mark.parametrize("services", [*NESTED.values(), TO_THE_LAST_PORT])
def test_every_way_is_found_again_in_what_a_kernel_prints(services: list[Service]) -> None:
    rules = [(service, number) for number, service in enumerate(services)]
    dataplane, kernel = compile_policy(policy_with(rules)), MemoryKernel()
    kernel.execute(plan_commit(dataplane, kernel.read(), "shared"))
    assert all(
        live.shows(table.identities)
        for table, live in zip(dataplane.tables, kernel.read().tables, strict=True)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thousand_rules_are_in_force_after_one_commit(shape: Shape) -> None:
    dataplane, kernel = compile_policy(policy_with(rules_of(shape, 1000))), MemoryKernel()
    kernel.execute(plan_commit(dataplane, kernel.read(), "shared"))
    live, members = kernel.read(), kernel.read_members()
    assert plan_commit(dataplane, live, "shared").steps == ()
    assert describe_changes(dataplane, live, members, "shared") == ()
    assert not drifted_sets(members)


GRE, SCTP, UNNAMED = Protocol(number=47), Protocol(number=132), Protocol(number=200)
ANYBODY = Allow(
    group=SecurityGroup(id="sg-00000001", name="web", vpc="vpc-0000000a", account="0" * 12),
    rule=1,
    service=GRE,
    peer=Peer(name="cidrs", label="cidrs", addresses=("0.0.0.0/0",)),
)


def _icmp(kind: int, code: int = -1) -> Icmp:
    return Icmp(protocol="icmp", type=kind, code=code)


TYPES: list[tuple[Service, int]] = [
    *((_icmp(kind), kind) for kind in range(9)),
    *((_icmp(9, c), 9 + c) for c in range(200)),
]


def test_many_types_of_icmp_are_one_look_up() -> None:
    chains = compiled([*TYPES, (_icmp(200), 1)])
    joint, denied = icmp_rules(chains)
    assert [type(match) for match in joint.matches] == [SourceServiceSet]
    assert (joint.target, denied.target) == (Goto(names.ACCEPT), Goto(names.DROP))
    assert len(joint.origins) == len(TYPES) + 1


def test_a_whole_icmp_is_asked_for_before() -> None:
    whole, joint, _ = icmp_rules(compiled([*TYPES, (_icmp(-1), 1)]))
    assert is_look_up(whole)
    assert not is_look_up(joint)


def test_what_has_no_room_is_walked_if_it_is_little() -> None:
    with patch.object(tree, "SERVICE_ENTRIES", 200 * 10 + 5 * 2560):
        chains = compiled([*TYPES, (_icmp(200), 1)])
    joint, *walked, denied = icmp_rules(chains)
    assert len(joint.origins) == 200 + 5
    assert len(walked) == 5
    assert denied.target == Goto(names.DROP)


def test_strangers_do_not_walk_types_that_have_no_room_together() -> None:
    types: list[tuple[Service, int]] = [(_icmp(kind), kind) for kind in range(100)]
    chains = compiled(types)
    way, denied = icmp_rules(chains)
    assert (is_look_up(way), way.target) == (True, Goto("reyes-0-icmp-types"))
    assert denied.target == Goto(names.DROP)
    assert len(chains["reyes-0-icmp-types"].rules) == len(types) + 1


def test_what_everybody_may_do_stands_before_what_has_no_room() -> None:
    group = SourceSet("r4:web:0123456789abcdefghij")
    members = tuple(f"10.0.0.{number}" for number in range(10))
    services = [Protocol(number=number) for number in range(100, 120)]
    sources = [Source(group, members, "", replace(ANYBODY, service=s)) for s in services]
    everybody = Source(None, ("0.0.0.0/0",), "0.0.0.0/0", ANYBODY)
    sources += [replace(everybody, allow=replace(ANYBODY, service=s)) for s in (GRE, UNNAMED)]
    denied = Rule((), Goto(names.DROP), "denied")
    with patch.object(tree, "SERVICE_ENTRIES", 2):
        chains = TreeCompiler(Family.V4, sources, 0, denied, lambda *_: "s4:x").chains("first")
    (_, joint, walked, way, _), below, _ = (chain.rules for chain in chains)
    assert joint.origins[0].service == GRE
    assert walked.matches == (UNNAMED,)
    assert way.matches == (group,)
    assert len(below) == len(services) + 1


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_before_everybody_keep_nobody_out(groups: int) -> None:
    services: list[Service] = [tcp(443, 443), tcp(1000, 2000), _icmp(8), GRE, Everything()]
    named = [SourceSet(f"r4:web-{n}:0123456789abcdefghij") for n in range(groups)]
    sources = [
        Source(match, members, "", replace(ANYBODY, service=service))
        for service in services
        for match, members in (
            *((group, ("10.0.0.1",)) for group in named),
            (None, ("0.0.0.0/0",)),
        )
    ]
    within = replace(ANYBODY, service=tcp(1500, 1600))
    sources += [Source(group, ("10.0.0.1",), "", within) for group in named]
    denied = Rule((), Goto(names.DROP), "denied")
    chains = TreeCompiler(Family.V4, sources, 0, denied, lambda *_: "").chains("first")
    accepting = [r for c in chains for r in c.rules if r.target == Goto(names.ACCEPT)]
    assert len(accepting) == len(services)
    assert not any(map(is_look_up, accepting))


def test_what_everybody_may_do_is_told_together_whatever_else_has_no_room() -> None:
    everybody = Source(None, ("0.0.0.0/0",), "0.0.0.0/0", ANYBODY)
    services = [Protocol(number=number) for number in (*range(90, 130), *range(200, 210))]
    sources = [replace(everybody, allow=replace(ANYBODY, service=s)) for s in services]
    denied = Rule((), Goto(names.DROP), "denied")
    chain, _ = TreeCompiler(Family.V4, sources, 0, denied, lambda *_: "s4:x").chains("first")
    _, joint, *walked, _ = chain.rules
    assert (len(joint.origins), len(walked)) == (40, 10)


def test_sources_of_several_rules_take_the_room_of_one() -> None:
    types: list[tuple[Service, int]] = [
        (_icmp(kind), number) for kind in range(30) for number in (1, 1)
    ]
    with patch.object(tree, "SERVICE_ENTRIES", 30 * 2560):
        chains = compiled(types)
    assert len(icmp_rules(chains)) == 1 + 1


def test_many_types_are_told_together_whatever_the_ports_take() -> None:
    types: list[tuple[Service, int]] = [(_icmp(kind), 1000 + kind) for kind in range(40)]
    chains = compiled(
        [
            *((service, n) for n, service in enumerate(RANGES["between any two ports"][:900])),
            *types,
        ]
    )
    joint, denied = icmp_rules(chains)
    assert isinstance(joint.matches[0], SourceServiceSet)
    assert denied.target == Goto(names.DROP)


def test_protocols_of_ipv6_are_walked() -> None:
    everybody = Source(None, ("::/0",), "::/0", ANYBODY)
    services = [Protocol(number=number) for number in range(100, 120)]
    sources = [replace(everybody, allow=replace(ANYBODY, service=s)) for s in services]
    denied = Rule((), Goto(names.DROP), "denied")
    chain, _ = TreeCompiler(Family.V6, sources, 0, denied, lambda *_: "").chains("first")
    assert len(chain.rules) == 1 + 20 + 1
    assert not any(isinstance(rule.matches[0], SourceServiceSet) for rule in chain.rules[:-1])


def test_few_types_are_walked() -> None:
    types = [(_icmp(kind), kind) for kind in range(8)]
    chains = compiled([*types, *rules_of("single ports", 20)])
    assert len(icmp_rules(chains)) == 8 + 1


def test_many_protocols_are_one_look_up_but_those_with_ports_or_without_a_name() -> None:
    numbers = [*range(100, 120), 132, 200]
    chains = compiled([(Protocol(number=number), number) for number in numbers])
    *_, joint, sctp, unnamed, denied = chains[names.INGRESS].rules
    assert [type(match) for match in joint.matches] == [SourceServiceSet]
    assert len(joint.origins) == 20
    assert [rule.matches[0] for rule in (sctp, unnamed)] == [SCTP, UNNAMED]
    assert denied.target == Goto(names.DROP)


def test_a_set_of_services_holds_everybody_as_two_halves() -> None:
    everybody = Source(None, ("0.0.0.0/0",), "0.0.0.0/0", ANYBODY)
    sources = [replace(everybody, allow=replace(ANYBODY, service=s)) for s, _ in TYPES]
    made: dict[str, list[str]] = {}

    def make_set(label: str, members: Iterable[str]) -> str:
        made[label] = sorted(members)
        return label

    denied = Rule((), Goto(names.DROP), "denied")
    TreeCompiler(Family.V4, sources, 0, denied, make_set).chains("first")
    assert set(made) == {"service"}
    assert {entry.partition(",")[0] for entry in made["service"]} == {"0.0.0.0/1", "128.0.0.0/1"}
    assert len(made["service"]) == 2 * (9 * 256 + 200)
