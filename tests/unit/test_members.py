"""Whose members need no look, and which texts are no addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reyes.errors import SignatureError
from reyes.members import JudgedSenders, check_addresses
from reyes.net import Network, canonical, parse_network, span
from reyes.ruleset import Vpc
from tests.strategies import networks

WIDE = ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/14", "fd00::/8", "::/0")
NARROW = ("10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "10.1.2.3", "fd00:1::/64")


def several(texts: tuple[str, ...], least: int, most: int) -> st.SearchStrategy[list[Network]]:
    return st.lists(st.sampled_from(texts).map(parse_network), min_size=least, max_size=most)


def vpc(cidrs: list[Network]) -> Vpc:
    return Vpc(id="vpc-0a", account="123456789012", cidrs=tuple(map(canonical, cidrs)))


@given(
    own=several(NARROW[:2], 0, 1),
    filtered=several(NARROW[:2] + WIDE, 1, 4),
    cidrs=several(WIDE[2:3] + NARROW, 1, 2),
)
def test_who_is_judged_as_a_vpc_is_judged_as_an_address(
    own: list[Network], filtered: list[Network], cidrs: list[Network]
) -> None:
    judged = JudgedSenders(own, filtered)
    ends = {end for network in (*own, *filtered, *cidrs) for end in (network[0], network[-1])}
    members = [str(end) for end in ends if any(end in cidr for cidr in cidrs)]
    if judged.judges_all(vpc(cidrs)):
        assert all(judged.judges(span(text)) for text in (*map(canonical, cidrs), *members))


def test_a_vpc_is_judged_as_a_whole_or_address_by_address() -> None:
    ten = parse_network("10.0.0.0/8")
    judged = JudgedSenders([parse_network("10.1.0.0/16")], [ten])
    found = {
        cidrs: judged.judges_all(vpc(list(map(parse_network, cidrs.split()))))
        for cidrs in ("10.2.0.0/16", "10.2.0.0/16 10.3.0.0/16", "10.1.0.0/16", "10.0.0.0/14")
    }
    assert list(found.values()) == [True, True, False, False]
    assert not judged.judges_all(
        vpc([parse_network("10.2.0.0/16"), parse_network("100.64.0.0/16")])
    )
    assert not judged.judges_all(vpc([]))
    out_of_ipsec = JudgedSenders([], None)
    assert out_of_ipsec.judges_all(vpc([]))
    assert out_of_ipsec.judges(span("192.0.2.1"))  # of a VPC that the ruleset does not hold


ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.0/8", "fd00::1", "10.1", "10.0.0.1 x", "web", ""])


@given(st.lists(ADDRESSES | networks()))
def test_one_bad_address_among_many_refuses_them_all(texts: list[str]) -> None:
    bad = [text for text in texts if not is_canonical(text)]
    if not bad:
        check_addresses(texts)
        return
    with pytest.raises(SignatureError) as caught:
        check_addresses(texts)
    assert repr(bad[0]) in caught.value.message


def is_canonical(text: str) -> bool:
    try:
        span(text)
    except ValueError:
        return False
    return True
