"""Whatever the ruleset says: what payloads look like, and what they never do."""

import re
from dataclasses import replace
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from reyes.net import Family, Protocol
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.ipset import create_text
from reyes.netfilter.iptables import Goto, render_chain
from reyes.policy import resolve
from reyes.ruleset import Content
from tests.cases import (
    V4,
    V6,
    WEB,
    case,
    compiled,
    group_rules,
)
from tests.lines import chain_lines, chain_names, comments
from tests.strategies_worlds import INSTANCE, WORLDS, World
from tests.worlds import (
    allow,
    icmp,
    tcp,
    verified,
)

T = TypeVar("T")

NASTY = [
    'a" -j ACCEPT "',
    "two\nlines\n-A INPUT -j ACCEPT",
    "--match-set x src -j ACCEPT",
    "\N{FIRE} hot",
    "'quoted' `and` $(more)",
    "back\\slash",
    "#0123456789abcdefghij",
    "COMMIT",
    "\x00\x1b[2J",
    "x" * 255,
]
LINE = re.compile(
    r"-A reyes-[a-z0-9-]+( [-a-zA-Z0-9_.:/+,]+| ! --update-counters)*"
    r'( -m comment --comment "[ -!#-~]{1,255}"( [-a-zA-Z0-9]+)*( "reyes-(accept|drop|audit): ")?'
    r"| -g reyes-[a-z0-9-]+)"
)
SET_LINE = re.compile(
    r"create r[46]:[\w.-]{1,7}:[A-Za-z0-9_-]{20} hash:net family inet6? hashsize \d+ maxelem \d+"
    r"|add r[46]:[\w.-]{1,7}:[A-Za-z0-9_-]{20} [0-9a-f.:/]+"
    r"|create p[46]:(?:tcp|udp):[A-Za-z0-9_-]{20} hash:net family inet6?"
    r" hashsize \d+ maxelem \d+ counters"
    r"|add p[46]:(?:tcp|udp):[A-Za-z0-9_-]{20} [0-9a-f.:/]+ packets \d+ bytes \d+",
    re.ASCII,
)


@pytest.mark.parametrize("name", NASTY)
def test_a_groups_name_never_reaches_a_payload(name: str) -> None:
    plain, nasty = (
        compiled(case(allow(tcp(443), WEB), name=name), log_drop=True) for name in ("web", name)
    )
    assert plain.tables != nasty.tables
    for family in Family:
        assert [line.replace("web{", "{") for line in group_rules(plain, family)] == [
            re.sub(r"from [\w.-]{1,7}\{", "from {", line) for line in group_rules(nasty, family)
        ]
        assert comments(plain, family, "reyes-ingress") == comments(nasty, family, "reyes-ingress")
    for line in all_lines(nasty):
        assert LINE.fullmatch(line), line
    for line in create_text(nasty.sets).splitlines():
        assert SET_LINE.fullmatch(line), line


def all_lines(dataplane: Dataplane) -> list[str]:
    return [
        line
        for table in dataplane.tables
        for chain in table.chains
        for _, line in render_chain(chain, table.family)
    ]


def payload_of(situation: World) -> Dataplane:
    return compile_policy(resolve(verified(situation.content), situation.host))


def shuffled(situation: World, lot: Random) -> World:
    """The same world, written down in another order wherever order has no meaning."""

    def mixed(values: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(lot.sample(values, len(values)))

    regions = (
        changed(
            region,
            groups=mixed(region.groups),
            interfaces=tuple(
                one
                if one.instance == INSTANCE
                else changed(one, addresses=mixed(one.addresses), groups=mixed(one.groups))
                for one in mixed(region.interfaces)
            ),
            vpcs=mixed(region.vpcs),
            prefix_lists=tuple(
                changed(one, cidrs=mixed(one.cidrs)) for one in mixed(region.prefix_lists)
            ),
        )
        for region in situation.content.regions
    )
    return replace(situation, content=changed(situation.content, regions=tuple(regions)))


quickly = settings(max_examples=50, deadline=None)


@quickly
@given(WORLDS, st.randoms(use_true_random=True))
def test_the_order_of_the_document_does_not_change_a_byte(situation: World, lot: Random) -> None:
    one, two = payload_of(situation), payload_of(shuffled(situation, lot))
    assert create_text(one.sets) == create_text(two.sets)
    assert all_lines(one) == all_lines(two)


@quickly
@given(WORLDS)
def test_every_line_is_plain_and_its_sets_are_those_that_are_made(situation: World) -> None:
    check_texts(payload_of(situation))


def check_texts(dataplane: Dataplane) -> None:
    lines = all_lines(dataplane)
    for line in lines:
        assert LINE.fullmatch(line), line
    for line in create_text(dataplane.sets).splitlines():
        assert SET_LINE.fullmatch(line), line
    names = [entry.name for entry in dataplane.sets]
    assert set(re.findall(r"--match-set (\S+) (?:src|dst)", "\n".join(lines))) == set(names)
    assert names == sorted(set(names))
    for table in dataplane.tables:
        chains = [chain.name for chain in table.chains]
        assert len(set(chains)) == len(chains)
        assert max(map(len, chains)) <= 28


@quickly
@given(WORLDS)
def test_nothing_is_denied_before_loopback_failsafe_own_vpc_and_known_connections(
    situation: World,
) -> None:
    dataplane = payload_of(situation)
    own = {vpc.id: vpc.cidrs for vpc in situation.home.vpcs}
    for table in dataplane.tables:
        entry, *others = table.chains
        lines = chain_lines(dataplane, table.family, "reyes-input")
        assert lines[0] == "-i lo -j RETURN"
        judging = [n for n, line in enumerate(lines) if line.endswith("-g reyes-ingress")]
        returns = [n for n, line in enumerate(lines) if line.endswith("-j RETURN")]
        assert sorted(judging + returns) == list(range(len(entry.rules)))
        if not judging:
            assert not others
            continue
        assert max(returns) < min(judging)
        known = chain_lines(dataplane, table.family, "reyes-ingress")[0]
        assert known.startswith("-m conntrack --ctstate ESTABLISHED,RELATED")
        assert known.endswith("-j RETURN")
        if situation.config.traffic == "vpc":
            for cidr in (cidr for one in situation.interfaces for cidr in own[one.vpc]):
                if (":" in cidr) is (table.family is V6):
                    assert f"-s {cidr} -j RETURN" in lines
        for failsafe in situation.config.failsafe:
            if (":" in failsafe.cidr) is (table.family is V6):
                positions = [n for n, li in enumerate(lines) if f"-s {failsafe.cidr} " in li]
                assert min(positions) <= len(situation.config.failsafe)


def check_ways(dataplane: Dataplane) -> None:
    """Every way through the chains goes down and comes to an end."""
    for table in dataplane.tables:
        position = {chain.name: n for n, chain in enumerate(table.chains)}
        for chain in table.chains:
            for rule in chain.rules:
                if isinstance(rule.target, Goto):
                    assert position[rule.target.chain] > position[chain.name]
            assert chain.name == "reyes-input" or chain.rules[-1].matches == (), chain.name


@quickly
@given(WORLDS)
def test_every_way_goes_down_and_ends(situation: World) -> None:
    check_ways(payload_of(situation))


def many_rules() -> Content:
    """More rules than are walked one after the other."""
    spread = [
        allow(
            tcp(1000 + 10 * n), f"10.2.{n}.0/24", "10.3.0.0/16", "pl-0000000a", "pl-0000000b", WEB
        )
        for n in range(40)
    ]
    return case(*spread, allow(icmp(8), WEB), allow(Protocol(number=47), WEB))


def test_many_rules_keep_to_the_same_order_names_and_ends() -> None:
    dataplane = compiled(many_rules(), log_drop=True)
    assert len(chain_names(dataplane, V4)) > len(chain_names(compiled(case()), V4))
    few, many = (chain_lines(d, V4, "reyes-ingress") for d in (compiled(case()), dataplane))
    assert (many[0], many[-1]) == (few[0], few[-1])
    assert chain_lines(dataplane, V4, "reyes-0-icmp")[:3] == few[1:4]
    check_texts(dataplane)
    check_ways(dataplane)
