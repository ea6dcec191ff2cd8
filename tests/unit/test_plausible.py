"""What a leader publishes only if a person says so."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from reyes.errors import ImplausibleError
from reyes.inventory import merge, view
from reyes.plausible import refuse_openings, shrinkage
from reyes.ruleset import Content, Counts, Vpc
from tests.leaders import configuration, fleet

WHOLE, NARROW = "10.0.0.0/8", "10.8.0.0/24"


def content(*excluded: str, name: str = "vpn", cidrs: Sequence[str] = (WHOLE,)) -> Content:
    (inventory,) = fleet(1, name, cidrs)
    return merge([view(inventory, "name", frozenset(excluded))], "name", excluded)


def test_a_first_ruleset_that_opens_whole_networks_is_refused() -> None:
    with pytest.raises(ImplausibleError) as caught:
        refuse_openings(configuration(), None, content())
    assert caught.value.message == (
        "open to whole networks, and nothing is published yet:"
        " sg-0000000a (vpn) in us-west-2, rule 1"
    )


@pytest.mark.parametrize("first", [content("vpn"), content(cidrs=[NARROW])])
def test_a_first_ruleset_that_opens_none_is_not(first: Content) -> None:
    refuse_openings(configuration(), None, first)


@pytest.mark.parametrize("excluded", [(), ("vpm",), ("web",)])
def test_a_group_that_is_not_excluded_any_more_is_refused(excluded: tuple[str, ...]) -> None:
    with pytest.raises(ImplausibleError, match="and excluded_group_names changed: sg-0000000a"):
        refuse_openings(configuration(), content("vpn"), content(*excluded))


def test_nobody_stops_a_leader_by_rules_in_ec2() -> None:
    refuse_openings(configuration(), content(cidrs=[NARROW]), content())


def test_what_was_open_before_does_not_stop_a_change_of_names() -> None:
    refuse_openings(configuration(), content(), content("web"))


def with_vpc(opened: Content, *networks: str) -> Content:
    vpc = Vpc(id="vpc-0000000b", account="123456789012", cidrs=networks)
    return replace(opened, regions=(replace(opened.regions[0], vpcs=(vpc,)),))


def test_a_rule_that_opens_several_networks_is_named_once() -> None:
    networks = ("10.1.0.0/16", "10.3.0.0/16")
    with pytest.raises(ImplausibleError, match=r"yet: sg-0000000a \(vpn\) in us-west-2, rule 1$"):
        refuse_openings(configuration(), None, with_vpc(content(cidrs=networks), *networks))


def test_a_rule_that_was_open_before_opens_nothing_by_a_new_vpc() -> None:
    refuse_openings(configuration(), content(), with_vpc(content("web"), "10.1.0.0/16"))


def counts(**changes: int) -> Counts:
    world = {
        "sources": 10,
        "vpcs": 10,
        "groups": 10,
        "rules": 10,
        "interfaces": 10,
        "instances": 10,
        "members": 10,
    }
    return Counts(**{**world, **changes})


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({}, []),
        ({"instances": 11, "members": 99, "sources": 11}, []),
        ({"instances": 7, "members": 7, "sources": 7}, []),
        ({"instances": 6}, ["instances fell from 10 to 6 (40%, max_shrink is 30%)"]),
        ({"members": 0}, ["members fell from 10 to 0 (100%, max_shrink is 30%)"]),
        ({"sources": 1}, ["sources fell from 10 to 1 (90%, max_shrink is 30%)"]),
        ({"groups": 6}, ["groups fell from 10 to 6 (40%, max_shrink is 30%)"]),
        ({"vpcs": 0, "rules": 0, "interfaces": 0}, []),
        (
            {"sources": 5, "instances": 5},
            [
                "sources fell from 10 to 5 (50%, max_shrink is 30%)",
                "instances fell from 10 to 5 (50%, max_shrink is 30%)",
            ],
        ),
    ],
)
def test_what_falls_by_more_than_max_shrink_is_named(
    after: dict[str, int], expected: list[str]
) -> None:
    assert shrinkage(counts(), counts(**after), 0.3) == expected


def test_an_empty_world_can_only_grow() -> None:
    empty = counts(sources=0, groups=0, instances=0, members=0)

    assert shrinkage(empty, empty, 0) == []
    assert shrinkage(empty, counts(), 0) == []


def test_limits_of_max_shrink() -> None:
    assert shrinkage(counts(), counts(instances=0), 1) == []
    assert shrinkage(counts(), counts(instances=9), 0) != []
