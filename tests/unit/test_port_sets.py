"""Sets of sources and ports: whom they let use what, and how few they are."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reyes.net import Family, Ports
from reyes.netfilter import port_sets, reaches
from reyes.netfilter.division import cut
from reyes.netfilter.entries import network_and_rest, reach_of
from reyes.netfilter.ipset import IPSet, ip_set
from reyes.netfilter.iptables import Match, SourcePortsSet, SourceSet
from reyes.netfilter.port_sets import PORT_LOOKUPS, port_matches
from reyes.netfilter.reaches import Opened
from tests.worlds import tcp


class Made:
    """The sets for ports, and the look-ups of each stretch."""

    def __init__(self, opened: Mapping[str, tuple[Sequence[Ports], Sequence[str]]]) -> None:
        self.sets: dict[str, IPSet] = {}
        self._own = {name: networks for name, (_, networks) in opened.items()}
        services = sorted({service for own, _ in opened.values() for service in own})
        self.stretches = [stretch.ports for stretch in cut(services, ())]
        self.matches = port_matches(
            self.stretches,
            [Opened(SourceSet(name), *each) for name, each in opened.items()],
            self._make_set,
        )

    def _make_set(self, label: str, members: Iterable[str]) -> str:
        entry = ip_set(Family.V4, label, members)
        self.sets[entry.name] = entry
        return entry.name

    @property
    def members(self) -> int:
        return sum(len(entry.members) for entry in self.sets.values())

    @property
    def most(self) -> int:
        return max(map(len, self.matches.values()))

    def may_use(self, source: str, ports: Ports) -> bool:
        return any(self._holds(match, source) for match in self.matches[ports])

    def _holds(self, match: Match, source: str) -> bool:
        if isinstance(match, SourceSet):
            return source in self._own.get(match.name, ()) or (
                match.name in self.sets and source in self.sets[match.name].members
            )
        assert isinstance(match, SourcePortsSet)
        reaches = map(network_and_reach, self.sets[match.name].members)
        return any(
            network == source and first <= match.first and match.last <= last
            for network, (first, last) in reaches
        )


def network_and_reach(entry: str) -> tuple[str, tuple[int, int]]:
    network, rest = network_and_rest(entry)
    return network, reach_of(rest)


def forced(*lookups: int, members: int = port_sets.PORT_MEMBERS) -> AbstractContextManager[object]:
    """Choose among these numbers of look-ups alone."""
    return patch.multiple(port_sets, PORT_LOOKUPS=lookups, OWN_LOOKUPS=(), PORT_MEMBERS=members)


PORTS = st.sampled_from([0, 1, 2, 3, 5, 8, 13, 80, 81, 65_534, 65_535])
RANGES = st.tuples(PORTS, PORTS).map(lambda ends: tcp(min(ends), max(ends)))
SOURCES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.0/30", "10.0.0.3", "10.1.0.0/16"])
OPENED = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(
        st.lists(RANGES, min_size=1, max_size=8, unique=True),
        st.lists(SOURCES, min_size=1, max_size=4, unique=True),
    ),
    min_size=1,
)


@pytest.mark.parametrize("lookups", PORT_LOOKUPS)
@given(opened=OPENED)
def test_a_source_may_use_what_some_service_opens_to_it(
    lookups: int, opened: dict[str, tuple[list[Ports], list[str]]]
) -> None:
    with forced(lookups):
        made = Made(opened)
    assert made.most <= lookups
    for ports in made.stretches:
        for source in {source for _, own in opened.values() for source in own}:
            expected = any(
                service.first <= ports.first and ports.last <= service.last
                for services, own in opened.values()
                if source in own
                for service in services
            )
            assert made.may_use(source, ports) is expected


A, B = ["10.0.0.1"], ["10.0.0.2", "10.0.0.3"]


def test_two_sources_whose_ports_overlap_share_a_set() -> None:
    made = Made({"a": ([tcp(10, 30)], A), "b": ([tcp(20, 40)], B)})
    (entry,) = made.sets.values()
    assert entry.name.startswith("p4:tcp:")
    assert entry.members == (
        "10.0.0.1 packets 10 bytes 65505",
        "10.0.0.2 packets 20 bytes 65495",
        "10.0.0.3 packets 20 bytes 65495",
    )
    assert made.matches == {
        tcp(10, 19): [SourcePortsSet(entry.name, 10, 19)],
        tcp(20, 30): [SourcePortsSet(entry.name, 20, 30)],
        tcp(31, 40): [SourcePortsSet(entry.name, 31, 40)],
    }


def test_services_that_touch_are_one_reach() -> None:
    made = Made({"a": ([tcp(10, 19), tcp(20, 29)], A), "b": ([tcp(15, 24)], B)})
    (entry,) = made.sets.values()
    assert network_and_reach(entry.members[0]) == ("10.0.0.1", (10, 29))


def test_a_source_of_two_groups_may_use_the_ports_of_both() -> None:
    made = Made({"a": ([tcp(10, 19)], A), "b": ([tcp(15, 30)], [*A, *B])})
    (entry,) = made.sets.values()
    assert [network_and_reach(member)[1] for member in entry.members] == [
        (10, 30),
        (15, 30),
        (15, 30),
    ]


def test_a_second_reach_begins_another_set() -> None:
    made = Made({"a": ([tcp(10, 19), tcp(30, 39)], A), "b": ([tcp(15, 35)], B)})
    assert len(made.sets) == 2
    assert made.most == 1


def test_a_reach_that_ends_where_a_section_begins_is_in_it() -> None:
    nested = {str(n): ([tcp(n, 40 - n)], [f"10.1.0.{n}"]) for n in range(10)}
    made = Made(
        {"a": ([tcp(0, 9), tcp(20, 39)], A), "b": ([tcp(5, 24), tcp(30, 35)], B), **nested}
    )
    assert (made.most, len(made.sets)) == (1, 3)


C = ["10.0.0.9"]


def test_with_two_look_ups_a_second_reach_is_in_a_second_set() -> None:
    opened = {
        "a": ([tcp(10, 19), tcp(30, 39)], A),
        "b": ([tcp(15, 35)], B),
        "c": ([tcp(12, 50)], C),
    }
    with forced(2):
        made = Made(opened)
    assert sorted(len(entry.members) for entry in made.sets.values()) == [1, 4]
    assert {ports.first: len(found) for ports, found in made.matches.items()} == {
        10: 1,
        12: 1,
        15: 1,
        20: 1,
        30: 2,
        36: 2,
        40: 1,
    }


def test_own_sets_are_looked_up_one_by_one_where_unions_would_be_many() -> None:
    groups = {
        f"{n}": (
            [tcp(100 * k, 100 * k) for k in range(1, 60) if k % 7 in (n, (n + 3) % 7)],
            networks(n, 500),
        )
        for n in range(7)
    }
    with forced(*PORT_LOOKUPS, members=4000):
        made = Made(groups)
    assert (made.most, made.sets) == (2, {})


@pytest.mark.parametrize(
    ("groups", "most_reaches", "lookups", "members"),
    [(16, 1000, 16, 0), (17, 1000, 1, 7600), (17, 10, 17, 0)],
)
def test_up_to_16_own_sets_are_looked_up_and_more_if_reaches_are_too_many(
    groups: int, most_reaches: int, lookups: int, members: int
) -> None:
    ranges = {
        str(group): ([tcp(100 * n, 100 * n + group) for n in range(40)], networks(group, 50))
        for group in range(groups)
    }
    with (
        patch.object(reaches, "MOST_REACHES", most_reaches),
        patch.object(port_sets, "PORT_MEMBERS", 850),
    ):
        made = Made(ranges)
    assert (made.most, made.members) == (lookups, members)


def test_where_reaches_are_too_many_sets_hold_no_ports() -> None:
    with patch.object(reaches, "MOST_REACHES", 2):
        made = Made({"a": ([tcp(10, 30)], A), "b": ([tcp(20, 40)], B), "c": ([tcp(12, 50)], C)})
    assert all(name.startswith("r4:") for name in made.sets)
    assert made.most == 1


def test_where_all_may_use_all_of_it_a_set_holds_no_ports() -> None:
    made = Made({"a": ([tcp(10, 19)], A), "b": ([tcp(10, 19)], B)})
    (entry,) = made.sets.values()
    assert entry.name.startswith("r4:union:")
    assert entry.members == (*A, *B)


def test_unions_of_each_stretch_are_taken_where_they_are_the_same() -> None:
    everything = ([tcp(0, 65_535)], [f"10.0.1.{n}" for n in range(200)])
    made = Made({"a": ([tcp(100 * n, 100 * n) for n in range(1, 50)], A), "b": everything})
    (entry,) = made.sets.values()
    assert (entry.name[:9], len(entry.members), made.most) == ("r4:union:", 201, 1)


def test_a_network_that_is_named_twice_stands_for_no_other() -> None:
    made = Made({"a": ([tcp(10, 19)], [*A, *A]), "b": ([tcp(10, 19)], B[:1])})
    assert made.may_use(B[0], tcp(10, 19))


def test_each_set_is_made_once() -> None:
    labels = []

    def make_set(label: str, members: Iterable[str]) -> str:
        labels.append(label)
        return f"{label}{len(list(members))}"

    services = [tcp(100 * n, 100 * n) for n in range(1, 50)]
    opened = [Opened(SourceSet(name), services, own) for name, own in (("a", A), ("b", B))]
    port_matches(services, opened, make_set)
    assert labels == ["union"]


def test_networks_of_one_reach_are_a_set_of_their_own_if_they_are_many() -> None:
    ranges = {
        str(n): ([tcp(1000 * k + n, 1000 * k + 500 + 2 * n) for k in range(50)], [f"10.0.0.{n}"])
        for n in range(10)
    }
    everything = ([tcp(0, 65_535)], [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(5000, 9500)])
    with forced(1, 2, members=6000):
        made = Made({**ranges, "all": everything})
    assert (made.most, made.members) == (2, 500)
    assert all(SourceSet("all") in looked_up for looked_up in made.matches.values())


def many(scale: int = 1) -> dict[str, tuple[list[Ports], list[str]]]:
    """Twelve sources of six ranges each, and two of a wide one, with 1 to 40 members a unit."""
    random = Random(0)
    found = {}
    for number in range(12):
        firsts = [(random.randrange(1, 60_000), random.randrange(10, 15_000)) for _ in range(6)]
        services = [tcp(first, min(65_535, first + size)) for first, size in firsts]
        found[f"{number}"] = (services, networks(number, scale * (1 + 5 * (number % 3))))
    found["wide"] = ([tcp(1, 65_000)], networks(99, scale * 40))
    found["half"] = ([tcp(500, 30_000)], networks(98, scale * 20))
    return found


def networks(number: int, count: int) -> list[str]:
    return [f"10.{number}.{n // 256}.{n % 256}" for n in range(count)]


@pytest.mark.parametrize(
    ("allowed", "members", "lookups"),
    [
        (1111, 1111, 1),
        (1110, 569, 2),
        (400, 361, 3),
        (321, 321, 4),
        (310, 302, 5),
        (100, 361, 3),
        (10, 302, 5),
    ],
)
def test_there_are_as_few_look_ups_as_the_members_allow(
    allowed: int, members: int, lookups: int
) -> None:
    with forced(*PORT_LOOKUPS, members=allowed):
        made = Made(many())
    assert (made.members, made.most) == (members, lookups)


def test_more_than_200000_members_take_another_look_up() -> None:
    assert Made(many(scale=180)).most == 1
    assert Made(many(scale=181)).most == 2
