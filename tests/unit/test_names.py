"""Names in the kernel: limits, ownership, and that a name vouches for what it names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reyes.net import Family
from reyes.netfilter import names
from tests.strategies import networks

AWKWARD = [
    "web",
    "web tier (eu-west-1)",
    'a"; -A INPUT -j ACCEPT; "',
    "two\nlines",
    "--match-set",
    "\N{FIRE}\N{FIRE}",
    "x" * 255,
    "",
    " ",
    ":",
    "a:b",
    "naïve",
]
ANY_NAME = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=255))
MEMBERS = st.lists(networks(), unique=True, max_size=5).map(lambda some: tuple(sorted(some)))


@given(st.sampled_from(Family), ANY_NAME, MEMBERS)
def test_a_set_name_fits_the_kernel_and_is_ours(
    family: Family, label: str, members: tuple[str, ...]
) -> None:
    name = names.set_name(family, label, members)
    assert len(name.encode()) <= 31
    assert re.fullmatch(rf"r{family.value}:[A-Za-z0-9_.-]{{1,7}}:[A-Za-z0-9_-]{{20}}", name)
    assert names.owns_set(name)


@given(st.lists(st.tuples(st.sampled_from(Family), ANY_NAME, MEMBERS), min_size=2, max_size=20))
def test_other_members_make_another_name(
    sets: list[tuple[Family, str, tuple[str, ...]]],
) -> None:
    held: dict[str, tuple[Family, tuple[str, ...]]] = {}
    for family, label, members in sets:
        name = names.set_name(family, label, members)
        assert held.setdefault(name, (family, members)) == (family, members)


@given(st.sampled_from(Family), ANY_NAME, MEMBERS, MEMBERS)
def test_a_name_vouches_for_its_own_members_alone(
    family: Family, label: str, members: tuple[str, ...], others: tuple[str, ...]
) -> None:
    assert names.vouches_for(names.set_name(family, label, members), members)
    named_after_others = names.set_name(family, label, others)
    assert names.vouches_for(named_after_others, members) is (members == others)


def test_ten_thousand_sets_that_differ_in_one_member_have_names_of_their_own() -> None:
    members = [(f"10.{i // 250}.{i % 250}.1", "10.250.0.1") for i in range(10_000)]
    assert len({names.set_name(Family.V4, "web", some) for some in members}) == 10_000


def test_members_never_run_into_one_another() -> None:
    split = names.set_name(Family.V4, "web", ("10.0.0.1", "0.0.0.2"))
    joined = names.set_name(Family.V4, "web", ("10.0.0.10.0.0.2",))
    assert split != joined


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("web", "web"),
        ("web tier (eu)", "web_tie"),
        ("production-frontend", "product"),
        ("a\nb", "a_b"),
        ("\N{FIRE}", "_"),
        ("", "_"),
        ("--x", "--x"),
    ],
)
def test_a_label_is_for_people(label: str, shown: str) -> None:
    name = names.set_name(Family.V4, label, ("10.0.0.1",))
    assert name.split(":")[1] == shown
    assert names.set_label(name) == f"r4:{shown}"


def test_an_interface_chain_fits_the_kernel() -> None:
    chain = names.interface_chain("eni-" + "f" * 17)
    assert chain == "reyes-eni-fffffffffffffffff"
    assert len(chain) <= 28
    for name in (chain, names.INPUT, names.INGRESS, names.ACCEPT, names.DROP):
        assert names.owns_chain(name)


@pytest.mark.parametrize("name", ["INPUT", "f2b-sshd", "Reyes-input", "reyes", "xreyes-input"])
def test_other_chains_are_not_ours(name: str) -> None:
    assert not names.owns_chain(name)


@pytest.mark.parametrize(
    "name",
    [
        "f2b-sshd",
        "r4:web",
        "r5:web:0123456789abcdefghij",
        "r4:web:0123456789abcdefgh/j",
        "r4:web:0123456789abcdefghi",
        "r4::0123456789abcdefghij",
        "r4:eightabc:0123456789abcdefghij",
        "r4:web:0123456789abcdefghij\n",
        "xr4:web:0123456789abcdefghij",
        "q4:web:0123456789abcdefghij",
    ],
)
def test_other_sets_are_not_ours(name: str) -> None:
    assert not names.owns_set(name)
