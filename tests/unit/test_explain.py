"""Explanations name the group, the rule and the member, and never disagree with the chains."""

from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from reyes.config import FailsafeConfig, FollowerConfig
from reyes.errors import SignatureError
from reyes.explain import Explanation, explain, may_reach, members_at
from reyes.host import configured_host
from reyes.net import Everything, Protocol, Service
from reyes.netfilter.compiler import compile_policy
from reyes.netfilter.evaluate import Packet, is_service
from reyes.policy import resolve_content
from reyes.ruleset import Content, GroupReference, PrefixList, Region
from reyes.uses import group_uses
from tests.worlds import allow, group, icmp, interface, tcp, vpc, world

HOST = "i-00000001"


def two_vpcs(*more_rules: Any) -> Content:
    """A host `web` in the west that lets in `app` of both sides, a list and a ping."""
    west = Region(
        name="us-west-2",
        vpcs=(vpc("vpc-0000000a", "10.1.0.0/16"),),
        groups=(
            group(
                "sg-00000001",
                "web",
                allow(tcp(80, 88), "sg-00000002"),
                allow(tcp(443), "10.2.0.0/24", "10.3.0.0/16"),
                allow(tcp(25), "pl-00000001"),
                allow(icmp(8), "0.0.0.0/0"),
                *more_rules,
                vpc="vpc-0000000a",
            ),
            group("sg-00000002", "app", vpc="vpc-0000000a"),
        ),
        interfaces=(interface("00000001", "10.1.0.10", "sg-00000001", HOST, vpc="vpc-0000000a"),),
        prefix_lists=(PrefixList(id="pl-00000001", cidrs=("10.4.0.0/16",)),),
    )
    east = Region(
        name="eu-west-1",
        vpcs=(vpc("vpc-0000000b", "10.2.0.0/16"),),
        groups=(group("sg-00000003", "app", vpc="vpc-0000000b"),),
        interfaces=(
            interface("00000002", "10.2.0.20", "sg-00000003", "i-00000002", vpc="vpc-0000000b"),
        ),
    )
    return world(east, west)


def ask(
    content: Content, source: str, port: int = 80, to: str = "10.1.0.10", **options: Any
) -> Explanation:
    packet = Packet(source=ip_address(source), destination=ip_address(to), protocol=6, port=port)
    host = configured_host(FollowerConfig(**options), HOST, None)
    policy = resolve_content(content, host)
    return explain(policy, compile_policy(policy), content, packet)


def test_an_accepted_packet_names_group_rule_member_and_kernel_rule() -> None:
    found = ask(two_vpcs(), "10.2.0.20", 81)

    assert (found.decision, found.interface) == ("accepted", "eni-00000001")
    granted = found.granted
    assert granted
    assert (granted.group, granted.group_name, granted.rule) == ("sg-00000001", "web", 1)
    assert (granted.service, granted.source) == ("tcp 80-88", "sg-00000002")
    (member,) = granted.members
    assert (member.instance, member.interface, member.group) == (
        "i-00000002",
        "eni-00000002",
        "sg-00000003",
    )
    assert (member.region, member.vpc) == ("eu-west-1", "vpc-0000000b")
    assert granted.set
    assert granted.set.startswith("r4:app:")
    assert granted.kernel_rule
    assert f"--match-set {granted.set} src" in granted.kernel_rule
    assert granted.kernel_rule.startswith("-A reyes-ingress -p tcp -m tcp --dport 80:88 ")


@pytest.mark.parametrize(
    ("source", "port", "matched"),
    [("10.3.9.9", 443, ("10.3.0.0/16",)), ("10.4.1.1", 25, ("10.4.0.0/16",))],
)
def test_an_accepted_packet_names_the_network_that_holds_it(
    source: str, port: int, matched: tuple[str, ...]
) -> None:
    found = ask(two_vpcs(), source, port)
    assert found.granted
    assert (found.decision, found.granted.matched) == ("accepted", matched)


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        (443, "sg-00000001 rule 2: tcp 443 from cidrs"),
        (22, "denied: no rule of eni-00000001 allows it"),
    ],
)
def test_a_judged_packet_says_by_which_rule(port: int, reason: str) -> None:
    assert ask(two_vpcs(), "10.3.9.9", port).reason == reason


def test_a_denied_packet_names_near_misses_and_who_sends_it() -> None:
    found = ask(two_vpcs(), "10.2.0.20", 443 + 1)
    assert (found.decision, found.granted, found.near_misses) == ("denied", None, ())
    assert [member.group_name for member in found.source_is] == ["app"]

    stranger = ask(two_vpcs(), "10.9.9.9", 80)
    assert stranger.source_is == ()
    (miss,) = stranger.near_misses
    assert (miss.group, miss.rule, miss.source) == ("sg-00000001", 1, "sg-00000002")
    assert miss.addresses == ("10.2.0.20",)


def test_a_packet_is_judged_at_the_interface_whose_address_it_goes_to() -> None:
    east, west = two_vpcs().regions
    same, apart = (
        interface(
            f"0000001{device}",
            f"10.1.0.1{device}",
            groups,
            HOST,
            device=device,
            vpc="vpc-0000000a",
        )
        for device, groups in ((1, "sg-00000001"), (2, "sg-00000002"))
    )
    twin = replace(apart, id="eni-00000013", device=3)
    content = world(east, replace(west, interfaces=(*west.interfaces, same, apart, twin)))

    judged = {to: ask(content, "10.2.0.20", to=to) for to in ("10.1.0.11", "10.1.0.12")}
    assert [(found.interface, found.decision) for found in judged.values()] == [
        ("eni-00000011", "accepted"),
        ("eni-00000012", "denied"),
    ]
    assert judged["10.1.0.12"].near_misses == ()
    (elsewhere,) = ask(content, "10.9.9.9", to="10.1.99.99").near_misses
    assert elsewhere.group == "sg-00000001"


def test_a_packet_to_one_of_many_addresses_is_judged_at_their_interface() -> None:
    east, west = two_vpcs().regions
    many = " ".join(f"10.1.1.{number}" for number in range(20))
    other = interface("00000011", many, "sg-00000002", HOST, device=1, vpc="vpc-0000000a")
    content = world(east, replace(west, interfaces=(*west.interfaces, other)))
    found = ask(content, "10.2.0.20", to="10.1.1.19")
    assert (found.interface, found.decision) == ("eni-00000011", "denied")


@pytest.mark.parametrize(
    ("service", "kind", "is_meant"),
    [
        (icmp(8), (8, 0), True),
        (icmp(8), (0, 0), False),
        (icmp(3, 4), (3, 4), True),
        (icmp(3, 4), (3, 1), False),
        (icmp(-1), (3, 1), True),
        (icmp(-1), None, True),
        (icmp(0), None, False),
    ],
)
def test_icmp_is_told_by_type_and_code(
    service: Service, kind: tuple[int, int] | None, is_meant: bool
) -> None:
    address = ip_address("10.1.0.10")
    packet = Packet(source=address, destination=address, protocol=1, icmp=kind)
    assert is_service(service, packet) is is_meant


def test_a_group_that_nobody_is_in_is_a_near_miss_all_the_same() -> None:
    found = ask(two_vpcs(allow(tcp(9000), "sg-00000001")), "10.9.9.9", 9000)
    (miss,) = found.near_misses
    assert (found.decision, miss.source, miss.addresses) == ("denied", "sg-00000001", ())


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        ("10.1.0.99", {}, "not judged: own VPC vpc-0000000a 10.1.0.0/16"),
        ("192.0.2.1", {}, "not judged: the source is outside filtered_cidrs (10.0.0.0/8)"),
        (
            "10.9.0.1",
            {"failsafe": (FailsafeConfig(cidr="10.9.0.0/24", protocol="tcp", port=22),)},
            "failsafe: tcp 22 from 10.9.0.0/24",
        ),
        (
            "10.9.0.1",
            {"traffic": "ipsec"},
            "not judged: the packet did not come out of IPsec on this host",
        ),
        (
            "10.9.0.1",
            {"traffic": "interface", "interfaces": ("wg0",)},
            "not judged: the packet does not arrive on wg0",
        ),
    ],
)
def test_a_packet_that_is_not_judged_says_why(
    source: str, options: dict[str, Any], reason: str
) -> None:
    found = ask(two_vpcs(), source, 22, **options)
    assert (found.decision, found.reason, found.interface) == ("not judged", reason, None)


def test_audit_mode_still_says_denied() -> None:
    found = ask(two_vpcs(), "10.9.9.9", 22, enforce=False)
    assert found.decision == "denied"


def test_a_rule_for_all_traffic_explains_any_packet() -> None:
    found = ask(two_vpcs(allow(Everything(), "10.9.0.0/16")), "10.9.9.9", 22)
    assert found.granted
    assert (found.granted.rule, found.granted.service) == (5, "all")


def test_only_members_by_the_source_of_the_rule_are_named() -> None:
    east, west = two_vpcs().regions
    both = interface("00000002", "10.2.0.20", "sg-00000003 sg-00000009", vpc="vpc-0000000b")
    granted = ask(world(replace(east, interfaces=(both,)), west), "10.2.0.20").granted
    assert granted
    assert [member.group for member in granted.members] == ["sg-00000003"]


def test_many_rules_are_explained_through_the_tree() -> None:
    rules = [allow(tcp(10_000 + 10 * n), "sg-00000002") for n in range(100)]
    found = ask(two_vpcs(*rules), "10.2.0.20", 10_990)
    assert found.granted
    assert (found.granted.rule, found.granted.service) == (104, "tcp 10990")
    assert ask(two_vpcs(*rules), "10.2.0.20", 10_991).decision == "denied"


def test_overlapping_ranges_are_explained_by_the_rule_that_opens_them() -> None:
    rules = [allow(tcp(10_000 + 2 * n), "10.3.0.0/16") for n in range(17)]
    rules += [
        allow(tcp(1000, 2000), "sg-00000002"),
        allow(tcp(1200, 2600), "10.3.0.0/16"),
        allow(tcp(1500, 3000), "10.2.0.0/24"),
    ]
    found = ask(two_vpcs(*rules), "10.2.0.20", 2001)
    assert found.granted
    assert (found.granted.service, found.granted.source) == ("tcp 1500-3000", "cidrs")
    assert found.granted.set
    assert found.granted.set.startswith("p4:tcp:")
    assert ask(two_vpcs(*rules), "10.2.0.20", 1300).granted
    assert ask(two_vpcs(*rules), "10.2.0.21", 1300).decision == "denied"


def test_what_is_left_out_is_told() -> None:
    stale = GroupReference(id="sg-00000002", peering="deleted")
    found = ask(two_vpcs(allow(tcp(22), "sg-0000dead", stale)), "10.2.0.20", 22)
    assert sorted((one.rule, one.what) for one in found.omitted) == [
        (5, "sg-00000002"),
        (5, "sg-0000dead"),
    ]


@pytest.mark.parametrize("bad", ["10.3.0.7/24", "10.3", "web"])
def test_an_address_elsewhere_that_is_none_refuses_the_ruleset(bad: str) -> None:
    content = two_vpcs()
    stranger = interface("00000003", bad, "sg-00000009", vpc="vpc-0000000b")
    east = content.regions[0]
    east = replace(east, interfaces=(*east.interfaces, stranger))
    with pytest.raises(SignatureError, match=f"bad address: '?{bad}"):
        ask(replace(content, regions=(east, content.regions[1])), "10.9.9.9", 22)


def test_all_that_may_reach_an_instance_is_listed_by_service() -> None:
    policy = resolve_content(two_vpcs(), configured_host(FollowerConfig(), HOST, None))
    ((interface_policy, grants),) = may_reach(policy)
    assert interface_policy.id == "eni-00000001"
    assert [(grant.service, grant.source) for grant in grants] == [
        ("icmp 8", "cidrs"),
        ("tcp 25", "pl-00000001"),
        ("tcp 443", "cidrs"),
        ("tcp 80-88", "sg-00000002"),
    ]


def test_a_group_is_found_by_name_in_all_vpcs_with_its_uses() -> None:
    east, west = group_uses(two_vpcs(), "app")
    assert (east.group, [member.address for member in east.members]) == (
        "sg-00000003",
        ["10.2.0.20"],
    )
    assert east.alike == ("sg-00000002 in vpc-0000000a, us-west-2",)
    assert [(use.group, use.rule, use.reference) for use in east.let_in_by] == [
        ("sg-00000001", 1, "sg-00000002")
    ]
    assert west.members == ()
    assert list(group_uses(two_vpcs(), "nobody")) == []


def test_rules_that_let_nobody_in_are_no_use() -> None:
    stale = GroupReference(id="sg-00000002", peering="deleted")
    content = two_vpcs(allow(Protocol(number=0), "sg-00000002"), allow(tcp(22), stale))
    _, west = group_uses(content, "app")
    assert [use.rule for use in west.let_in_by] == [1]
    _, excluded = group_uses(replace(content, excluded_group_names=("web",)), "app")
    assert excluded.let_in_by == ()


def test_an_address_in_a_delegated_prefix_belongs_to_its_interface() -> None:
    content = world(
        Region(
            name="us-west-2",
            vpcs=(vpc("vpc-0000000a", "10.1.0.0/16"),),
            groups=(group("sg-00000001", "web", vpc="vpc-0000000a"),),
            interfaces=(
                interface("00000001", "10.1.0.16/28", "sg-00000001", HOST, vpc="vpc-0000000a"),
            ),
        )
    )
    (member,) = members_at(content, ip_address("10.1.0.19"))
    assert member.address == "10.1.0.16/28"
    assert list(members_at(content, ip_address("10.1.0.32"))) == []


def test_of_many_types_of_icmp_the_one_that_lets_in_is_named() -> None:
    sources = ("10.2.0.0/24", "10.2.1.0/24")
    rules = [allow(icmp(kind), sources[kind % 2]) for kind in range(30, 60)]
    content = two_vpcs(*rules)
    packet = Packet(
        source=ip_address("10.2.0.20"),
        destination=ip_address("10.1.0.10"),
        protocol=1,
        icmp=(50, 7),
    )
    policy = resolve_content(content, configured_host(FollowerConfig(), HOST, "us-west-2"))
    dataplane = compile_policy(policy)
    found = explain(policy, dataplane, content, packet)
    assert found.granted
    assert (found.decision, found.granted.service) == ("accepted", "icmp 50")
    assert found.granted.rule == 5 + 20
    assert found.granted.set in {entry.name for entry in dataplane.sets}
    assert found.granted.kernel_rule
    assert f"--match-set {found.granted.set} src,dst" in found.granted.kernel_rule
    denied = explain(policy, dataplane, content, replace(packet, icmp=(51, 7)))
    assert (denied.decision, [miss.service for miss in denied.near_misses]) == (
        "denied",
        ["icmp 51"],
    )
