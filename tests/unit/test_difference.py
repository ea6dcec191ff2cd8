import msgspec
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from reyes.difference import Difference, compare
from reyes.net import Ports
from reyes.ruleset import Content, GroupReference, Ingress, PrefixList, SecurityGroup
from tests.strategies import contents
from tests.worlds import small_world


def lines(before: Content | None, after: Content) -> list[str]:
    return list(compare(before, after).lines())


def with_west(content: Content, **changes: object) -> Content:
    """The world with some fields of its second region changed."""
    eu, west = content.regions
    return replace(content, regions=(eu, replace(west, **changes)))


def test_the_same_world_differs_in_nothing() -> None:
    difference = compare(small_world(), small_world())

    assert not difference
    assert list(difference.lines()) == []


def test_the_first_ruleset_adds_every_group_in_one_line_each() -> None:
    assert lines(None, small_world()) == [
        "+ VPC vpc-0e0e0e0e in eu-west-1",
        "  + CIDR 10.2.0.0/16",
        "+ VPC vpc-0a1b2c3d in us-west-2",
        "  + CIDR 10.1.0.0/16",
        "+ group web (sg-0000000e) in eu-west-1 vpc-0e0e0e0e: rules 0, members 1",
        "+ group web (sg-0000000a) in us-west-2 vpc-0a1b2c3d: rules 2, members 3",
        "+ group db (sg-0000000b) in us-west-2 vpc-0a1b2c3d: rules 4, members 2",
        "+ prefix list pl-0000000a in us-west-2",
        "  + entry 192.0.2.0/24",
        "  + entry 198.51.100.7",
    ]


def test_a_vanished_group_takes_one_line_and_changes_the_rules_that_named_it() -> None:
    before = small_world()
    west = before.regions[1]
    after = with_west(before, groups=west.groups[1:], interfaces=west.interfaces[1:2])

    assert lines(before, after) == [
        "- group web (sg-0000000a) in us-west-2 vpc-0a1b2c3d: rules 2, members 3",
        "~ group db (sg-0000000b) in us-west-2 vpc-0a1b2c3d",
        "  + rule tcp 5432-5433 from sg-0000000a",
        "  - rule tcp 5432-5433 from sg-0000000a (web)",
    ]


def test_rules_are_told_source_by_source() -> None:
    before = small_world()
    web, db = before.regions[1].groups
    changed = Ingress(
        service=Ports(protocol="tcp", first=443, last=443), cidrs=("10.3.0.0/16", "::/0")
    )
    more = Ingress(
        service=Ports(protocol="udp", first=0, last=65535),
        prefix_lists=("pl-0000000a",),
        groups=(
            GroupReference(id="sg-0000000b"),
            GroupReference(id="sg-0000000d", account="210987654321", peering="deleted"),
        ),
    )
    after = with_west(before, groups=(replace(web, ingress=(changed, more)), db))

    assert lines(before, after) == [
        "~ group web (sg-0000000a) in us-west-2 vpc-0a1b2c3d",
        "  + rule tcp 443 from 10.3.0.0/16",
        "  + rule udp all ports from 210987654321/sg-0000000d, peering deleted",
        "  + rule udp all ports from pl-0000000a",
        "  + rule udp all ports from sg-0000000b (db)",
        "  - rule tcp 443 from 0.0.0.0/0",
    ]


def test_members_are_told_by_group() -> None:
    before = small_world()
    first, *others = before.regions[1].interfaces
    moved = replace(first, addresses=("10.1.0.99", "2001:db8::10"))
    after = with_west(before, interfaces=(moved, *others))

    assert lines(before, after) == [
        "~ group web (sg-0000000a) in us-west-2 vpc-0a1b2c3d",
        "  + member 10.1.0.99",
        "  - member 10.1.0.10",
    ]


def test_entries_of_prefix_lists_are_told() -> None:
    before = small_world()
    after = with_west(
        before,
        prefix_lists=(
            PrefixList(id="pl-0000000a", cidrs=("192.0.2.0/24",)),
            PrefixList(id="pl-0000000b", cidrs=()),
        ),
    )

    assert lines(before, after) == [
        "~ prefix list pl-0000000a in us-west-2",
        "  - entry 198.51.100.7",
        "+ prefix list pl-0000000b in us-west-2",
    ]
    assert lines(after, before)[-1] == "- prefix list pl-0000000b in us-west-2"


def test_what_makes_a_group_mean_others_is_told() -> None:
    before = small_world()
    web, db = before.regions[1].groups
    after = with_west(before, groups=(web, replace(db, name="store", tag="data")))

    assert lines(before, after) == [
        "~ group store (sg-0000000b) in us-west-2 vpc-0a1b2c3d",
        "  ~ name was db, is store",
        "  ~ tag was none, is data",
    ]


def test_a_tag_stays_on_its_line() -> None:
    before = small_world()
    web, db = before.regions[1].groups
    after = with_west(before, groups=(web, replace(db, tag="data\n<3>forged\u202e")))

    assert lines(before, after)[1:] == ["  ~ tag was none, is data <3>forged"]


def test_a_name_stays_within_its_brackets() -> None:
    world = small_world()
    west = world.regions[1]
    named = replace(west.groups[0], name="x), sg-0000000b (db\n+ group")
    said = lines(world, with_west(world, groups=(named, *west.groups[1:])))
    assert "  + rule tcp 5432-5433 from sg-0000000a ('x), sg-0000000b (db\\n+ group')" in said
    assert not any("\n" in line for line in said)


def test_networks_of_vpcs_are_told() -> None:
    before = small_world()
    (own,) = before.regions[1].vpcs
    after = with_west(before, vpcs=(replace(own, cidrs=("10.9.0.0/16",)),))

    assert lines(before, after) == [
        "~ VPC vpc-0a1b2c3d in us-west-2",
        "  + CIDR 10.9.0.0/16",
        "  - CIDR 10.1.0.0/16",
    ]


def test_whatever_else_changed_is_not_nothing() -> None:
    before = small_world()
    first, *others = before.regions[1].interfaces
    after = with_west(before, interfaces=(replace(first, device=7), *others))

    assert lines(before, after) == ["~ who carries which address, or the form of rules"]


def test_settings_are_told() -> None:
    before = small_world()
    after = replace(before, group_matching="id", excluded_group_names=("open",))

    assert lines(before, after) == [
        "~ group_matching was name, is id",
        "~ groups named open are excluded",
        "~ groups named vpn-allow-all are no longer excluded",
    ]


def test_groups_of_one_id_in_two_regions_are_two() -> None:
    before = small_world()
    eu, west = before.regions
    twin = SecurityGroup(id="sg-0000000a", name="twin", vpc="vpc-0e0e0e0e", account="123456789012")
    after = replace(before, regions=(replace(eu, groups=(*eu.groups, twin)), west))

    assert lines(before, after) == [
        "+ group twin (sg-0000000a) in eu-west-1 vpc-0e0e0e0e: rules 0, members 0"
    ]


# Whole documents are slow to draw.
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(contents(), contents())
def test_there_and_back_are_mirror_images(one: Content, other: Content) -> None:
    there, back = compare(one, other), compare(other, one)

    assert bool(there) == bool(back) == (one != other)
    assert [(g.region, g.id, g.rules_added, g.members_added) for g in there.groups] == [
        (g.region, g.id, g.rules_removed, g.members_removed) for g in back.groups
    ]
    assert msgspec.json.decode(msgspec.json.encode(there), type=Difference) == there
