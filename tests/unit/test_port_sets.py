"""Sets of sources and ports: whom they let use what, and how few they are."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reyes.net import Family, Ports
from reyes.netfilter import port_sets
from reyes.netfilter.division import cut
from reyes.netfilter.entries import reach_of, with_reach
from reyes.netfilter.ipset import IPSet, ip_set
from reyes.netfilter.iptables import Match, SourcePortsSet, SourceSet
from reyes.netfilter.port_sets import HARDLY_MORE, LOOKUPS, Opened, look_ups


def _tcp(first: int, last: int) -> Ports:
    return Ports(protocol="tcp", first=first, last=last)


class Asked:
    """What look-ups say of sources and stretches, and the sets that they take."""

    def __init__(self, opened: Mapping[str, tuple[Sequence[Ports], Sequence[str]]]) -> None:
        self.sets: dict[str, IPSet] = {}
        services = sorted({service for own, _ in opened.values() for service in own})
        self.stretches = [stretch.ports for stretch in cut(services, ())]
        self.look_ups = look_ups(
            self.stretches,
            {SourceSet(name): Opened(list(s), tuple(own)) for name, (s, own) in opened.items()},
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
        return max(map(len, self.look_ups.values()))

    def may_use(self, source: str, ports: Ports) -> bool:
        return any(self._holds(match, source) for match in self.look_ups[ports])

    def _holds(self, match: Match, source: str) -> bool:
        if isinstance(match, SourceSet):
            return source in self.sets[match.name].members
        assert isinstance(match, SourcePortsSet)
        reaches = [reach_of(entry) for entry in self.sets[match.name].members]
        return any(
            network == source and first <= match.first and match.last <= last
            for network, first, last in reaches
        )


@contextmanager
def forced(*lookups: int, members: int = port_sets.PORT_MEMBERS) -> Iterator[None]:
    """Choose among these numbers of look-ups alone."""
    with patch.multiple(port_sets, LOOKUPS=lookups, PORT_MEMBERS=members):
        yield


PORTS = st.sampled_from([0, 1, 2, 3, 5, 8, 13, 80, 81, 65_534, 65_535])
RANGES = st.tuples(PORTS, PORTS).map(lambda ends: _tcp(min(ends), max(ends)))
SOURCES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.0/30", "10.0.0.3", "10.1.0.0/16"])
OPENED = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(
        st.lists(RANGES, min_size=1, max_size=8, unique=True),
        st.lists(SOURCES, min_size=1, max_size=4, unique=True),
    ),
    min_size=1,
)


@pytest.mark.parametrize("lookups", LOOKUPS)
@given(opened=OPENED)
def test_a_source_may_use_what_some_service_opens_to_it(
    lookups: int, opened: dict[str, tuple[list[Ports], list[str]]]
) -> None:
    with forced(lookups):
        asked = Asked(opened)
    assert asked.most <= lookups
    for ports in asked.stretches:
        for source in {source for _, own in opened.values() for source in own}:
            expected = any(
                service.first <= ports.first and ports.last <= service.last
                for services, own in opened.values()
                if source in own
                for service in services
            )
            assert asked.may_use(source, ports) is expected


A, B = ["10.0.0.1"], ["10.0.0.2", "10.0.0.3"]


def test_two_sources_whose_ports_overlap_share_a_set() -> None:
    asked = Asked({"a": ([_tcp(10, 30)], A), "b": ([_tcp(20, 40)], B)})
    (entry,) = asked.sets.values()
    assert entry.name.startswith("p4:ports:")
    assert entry.members == (
        "10.0.0.1 packets 10 bytes 65505",
        "10.0.0.2 packets 20 bytes 65495",
        "10.0.0.3 packets 20 bytes 65495",
    )
    assert asked.look_ups == {
        _tcp(10, 19): [SourcePortsSet(entry.name, 10, 19)],
        _tcp(20, 30): [SourcePortsSet(entry.name, 20, 30)],
        _tcp(31, 40): [SourcePortsSet(entry.name, 31, 40)],
    }


def test_services_that_touch_are_one_reach() -> None:
    asked = Asked({"a": ([_tcp(10, 19), _tcp(20, 29)], A), "b": ([_tcp(15, 24)], B)})
    (entry,) = asked.sets.values()
    assert reach_of(entry.members[0]) == ("10.0.0.1", 10, 29)


def test_a_source_of_two_groups_may_use_the_ports_of_both() -> None:
    asked = Asked({"a": ([_tcp(10, 19)], A), "b": ([_tcp(15, 30)], [*A, *B])})
    (entry,) = asked.sets.values()
    assert [reach_of(member)[1:] for member in entry.members] == [(10, 30), (15, 30), (15, 30)]


def test_a_second_reach_begins_another_set() -> None:
    asked = Asked({"a": ([_tcp(10, 19), _tcp(30, 39)], A), "b": ([_tcp(15, 35)], B)})
    assert len(asked.sets) == 2
    assert asked.most == 1


def test_a_reach_that_ends_where_a_set_begins_is_in_it() -> None:
    a = [_tcp(0, 9), _tcp(20, 39)]
    b = [_tcp(5, 24), _tcp(30, 35)]
    asked = Asked({"a": (a, A), "b": (b, B)})
    assert (asked.most, len(asked.sets)) == (1, 3)


def test_with_two_look_ups_a_second_reach_is_in_a_second_set() -> None:
    opened = {"a": ([_tcp(10, 19), _tcp(30, 39)], A), "b": ([_tcp(15, 35)], B)}
    with forced(2):
        asked = Asked(opened)
    assert sorted(len(entry.members) for entry in asked.sets.values()) == [1, 3]
    assert {ports.first: len(found) for ports, found in asked.look_ups.items()} == {
        10: 1,
        15: 1,
        20: 1,
        30: 2,
        36: 1,
    }


def test_where_all_may_use_all_of_it_a_set_holds_no_ports() -> None:
    asked = Asked({"a": ([_tcp(10, 19)], A), "b": ([_tcp(10, 19)], B)})
    (entry,) = asked.sets.values()
    assert entry.name.startswith("r4:union:")
    assert entry.members == (*A, *B)


MANY = {
    str(n): ([_tcp(100 * k + n, 100 * k + 50 + 2 * n) for k in range(40)], [f"10.0.0.{n}"])
    for n in range(20)
}


def test_there_are_as_few_look_ups_as_the_members_allow() -> None:
    members, most = {}, {}
    for lookups in LOOKUPS:
        with forced(lookups):
            members[lookups], most[lookups] = Asked(MANY).members, Asked(MANY).most
    assert list(members.values()) == sorted(members.values(), reverse=True)
    for lookups in LOOKUPS:
        with forced(*LOOKUPS, members=members[lookups]):
            asked = Asked(MANY)
        fewest = next(n for n in LOOKUPS if members[n] <= members[lookups])
        assert (asked.members, asked.most) == (members[fewest], most[fewest])


def test_where_all_are_too_many_hardly_more_than_the_least_is_taken() -> None:
    members = {}
    for lookups in LOOKUPS:
        with forced(lookups):
            members[lookups] = Asked(MANY).members
    allowed = HARDLY_MORE * min(members.values())
    fewest = next(taken for taken in members.values() if taken <= allowed)
    with forced(*LOOKUPS, members=0):
        assert Asked(MANY).members == fewest


@given(st.tuples(PORTS, PORTS).map(sorted), st.integers(0, 10**6), st.integers(0, 10**9))
def test_what_counts_by_mistake_only_narrows(ends: list[int], packets: int, size: int) -> None:
    first, last = ends
    network, _, begin, _, rest = with_reach("10.0.0.1", first, last).split()
    counted = f"{network} packets {int(begin) + packets} bytes {int(rest) + size}"
    _, narrowed_first, narrowed_last = reach_of(counted)
    assert first <= narrowed_first
    assert narrowed_last <= last
