"""What a ruleset means for one host, by tables written from EC2's rules."""

from typing import Any

import pytest
from msgspec.structs import replace

from reyes.errors import HostUnknownError, SignatureError
from reyes.host import Host, InterfaceScope, IpsecScope, Scope, VpcScope
from reyes.net import Everything, Protocol, Service, canonical, parse_network
from reyes.policy import HostPolicy, resolve
from reyes.ruleset import Content, GroupReference, Ingress, PrefixList, Region
from tests.worlds import (
    EU_VPC,
    WEST_VPC,
    allow,
    group,
    icmp,
    icmpv6,
    interface,
    tcp,
    verified,
    vpc,
    world,
)

HOST = "i-0000000a"
PEERED_VPC, FAR_VPC = "vpc-0b0b0b0b", "vpc-0c0c0c0c"
APP, WEB, WEB_PEERED, DEFAULT, VPN, LONELY, API = (f"sg-0000000{n}" for n in "abcdef1")
WEB_EU, DEFAULT_EU, FRONT_EU, VPN_EU, WEB_FAR = (f"sg-000000e{n}" for n in range(5))


def west(*ingress: Ingress, **fields: Any) -> Region:
    """The host's region: its VPC with a secondary CIDR, and a peered one."""
    members = (
        interface("0000000a", "10.1.0.10 fd00:1::10", APP, HOST),
        interface("0000000b", "10.1.0.20 10.11.0.20 fd00:1::20", WEB),
        interface("0000000c", "10.3.0.20", WEB, vpc=PEERED_VPC),
        interface("0000000d", "10.3.0.30", WEB_PEERED, vpc=PEERED_VPC),
        interface("0000000e", "10.3.0.40", DEFAULT, vpc=PEERED_VPC),
        interface("0000000f", "10.3.0.50", VPN, vpc=PEERED_VPC),
        interface("00000001", "10.3.0.60", f"{API} {WEB_PEERED}", vpc=PEERED_VPC),
    )
    region = {
        "vpcs": (
            vpc(WEST_VPC, "10.1.0.0/16", "10.11.0.0/16", "fd00:1::/64"),
            vpc(PEERED_VPC, "10.3.0.0/16"),
        ),
        "groups": (
            group(APP, "app", *ingress),
            group(WEB, "web", tag="front"),
            group(WEB_PEERED, "web", vpc=PEERED_VPC, tag="back"),
            group(DEFAULT, "default", vpc=PEERED_VPC, tag="front"),
            group(VPN, "vpn-allow-all", tag="front"),
            group(LONELY, "lonely", tag=""),
            group(API, "api", vpc=PEERED_VPC),
        ),
        "interfaces": members,
        "prefix_lists": (
            PrefixList(id="pl-0000000a", cidrs=("10.20.0.0/16", "192.0.2.7", "fd00:20::/64")),
        ),
    }
    return Region(name="us-west-2", **(region | fields))


EU = Region(
    name="eu-west-1",
    vpcs=(vpc(EU_VPC, "10.2.0.0/16", "fd00:2::/64"),),
    groups=(
        group(WEB_EU, "web", vpc=EU_VPC, tag="other"),
        group(DEFAULT_EU, "default", vpc=EU_VPC),
        group(FRONT_EU, "entrance", vpc=EU_VPC, tag="front"),
        group(VPN_EU, "vpn-allow-all", vpc=EU_VPC, tag="front"),
        group("sg-000000ee", "untagged", vpc=EU_VPC, tag=""),
    ),
    interfaces=(
        interface("000000e0", "10.2.0.10 10.2.0.11 10.2.16.0/28 fd00:2::10", WEB_EU, vpc=EU_VPC),
        interface("000000e1", "10.2.0.40", DEFAULT_EU, vpc=EU_VPC),
        interface("000000e2", "10.2.0.60", FRONT_EU, vpc=EU_VPC),
        interface("000000e3", "10.2.0.70", VPN_EU, vpc=EU_VPC),
        interface("000000ee", "10.2.0.80", "sg-000000ee", vpc=EU_VPC),
    ),
)
FAR = Region(
    name="us-east-1",
    vpcs=(vpc(FAR_VPC, "172.16.0.0/16"),),
    groups=(group(WEB_FAR, "web", vpc=FAR_VPC),),
    interfaces=(interface("000000f0", "172.16.0.10", WEB_FAR, vpc=FAR_VPC),),
)

TEN = VpcScope((parse_network("10.0.0.0/8"),))
BOTH = VpcScope((parse_network("10.0.0.0/8"), parse_network("fd00::/8")))
ALL_BOTH = VpcScope((parse_network("0.0.0.0/0"), parse_network("::/0")))


def content(*ingress: Ingress, **fields: Any) -> Content:
    return world(EU, FAR, west(*ingress), **fields)


def policy(of: Content, scope: Scope = TEN, **fields: Any) -> HostPolicy:
    defaults = {"instance_id": HOST, "region": "us-west-2"}
    return resolve(verified(of), Host(scope=scope, **(defaults | fields)))


def peers(found: HostPolicy) -> list[tuple[str, ...]]:
    """Whom the host's first interface is open to, allow by allow."""
    return [allowed.peer.addresses for allowed in found.interfaces[0].allows]


def members(reference: str, scope: Scope, matching: str = "name") -> set[str]:
    of = content(allow(tcp(443), reference), group_matching=matching)
    return {address for peer in peers(policy(of, scope)) for address in peer}


OWN_WEB = {"10.1.0.20", "10.11.0.20", "fd00:1::20"}
"""Members of `web` inside the host's own VPC: its packets never pass Reyes in scope vpc."""
NEAR_WEB = {"10.3.0.20"}
SAME_NAME = {"10.3.0.30", "10.3.0.60", "10.2.0.10", "10.2.0.11", "10.2.16.0/28"}
V6_WEB, OUTSIDE_WEB = {"fd00:2::10"}, {"172.16.0.10"}
EVERY_WEB = OWN_WEB | NEAR_WEB | SAME_NAME | V6_WEB | OUTSIDE_WEB

MATCHING: list[tuple[str, str, Scope, set[str]]] = [
    # By name: every group of the name; of the own VPC and outside the filter, nobody.
    ("name", WEB, TEN, NEAR_WEB | SAME_NAME),
    ("name", WEB, BOTH, NEAR_WEB | SAME_NAME | V6_WEB),
    ("name", WEB, ALL_BOTH, EVERY_WEB - OWN_WEB),
    ("name", WEB, IpsecScope(), EVERY_WEB),
    ("name", WEB, InterfaceScope(("wg0",)), EVERY_WEB),
    ("name", WEB_PEERED, TEN, NEAR_WEB | SAME_NAME),
    # `default` is never matched by name, but referred to by id it is itself.
    ("name", DEFAULT, TEN, {"10.3.0.40"}),
    ("name", API, TEN, {"10.3.0.60"}),
    # By id: nobody else.
    ("id", WEB, TEN, NEAR_WEB),
    ("id", WEB, IpsecScope(), OWN_WEB | NEAR_WEB),
    ("id", WEB_PEERED, TEN, {"10.3.0.30", "10.3.0.60"}),
    ("id", DEFAULT, TEN, {"10.3.0.40"}),
    # By tag: the same value, whatever the name, `default` too.
    ("tag:role", WEB, TEN, NEAR_WEB | {"10.3.0.40", "10.3.0.50", "10.2.0.60", "10.2.0.70"}),
    ("tag:role", WEB_PEERED, TEN, {"10.3.0.30", "10.3.0.60"}),
    ("tag:role", API, TEN, {"10.3.0.60"}),
    # An empty value is no value.
    ("tag:role", LONELY, TEN, set()),
    ("name", LONELY, TEN, set()),
]


@pytest.mark.parametrize(("matching", "reference", "scope", "expected"), MATCHING)
def test_whom_a_reference_means(
    matching: str, reference: str, scope: Scope, expected: set[str]
) -> None:
    assert members(reference, scope, matching) == expected


def test_a_self_reference_means_the_other_members() -> None:
    twin = group("sg-000000ea", "app", vpc=EU_VPC)
    there = interface("000000ea", "10.2.0.99", "sg-000000ea", vpc=EU_VPC)
    eu = Region(name="eu-west-1", vpcs=EU.vpcs, groups=(twin,), interfaces=(there,))
    found = world(eu, west(allow(tcp(443), APP)))
    assert peers(policy(found)) == [("10.2.0.99",)]
    assert peers(policy(found, IpsecScope())) == [("10.1.0.10", "10.2.0.99", "fd00:1::10")]


def test_a_prefix_that_reaches_out_of_the_own_vpc_or_the_filter_is_kept() -> None:
    wide = interface("000000ea", "10.0.0.0/12", "sg-000000ea", vpc=EU_VPC)
    eu = Region(
        name="eu-west-1",
        vpcs=EU.vpcs,
        groups=(group("sg-000000ea", "api", vpc=EU_VPC),),
        interfaces=(wide,),
    )
    of = world(eu, west(allow(tcp(443), API)))
    narrow = VpcScope((parse_network("10.2.0.5"),))
    assert peers(policy(of, narrow)) == [("10.0.0.0/12",)]
    assert peers(policy(of)) == [("10.0.0.0/12", "10.3.0.60")]


def test_groups_of_one_id_in_two_regions_are_two_groups() -> None:
    twin = interface("000000ea", "10.2.0.99", APP, vpc=EU_VPC)
    eu = Region(
        name="eu-west-1",
        vpcs=EU.vpcs,
        groups=(group(APP, "unlike", vpc=EU_VPC),),
        interfaces=(twin,),
    )
    assert peers(policy(world(eu, west(allow(tcp(443), APP))))) == [()]


def test_a_peer_tells_whose_members_it_holds() -> None:
    (allowed,) = policy(content(allow(tcp(443), WEB))).interfaces[0].allows
    assert (allowed.group.id, allowed.rule, allowed.service) == (APP, 1, tcp(443))
    assert (allowed.peer.name, allowed.peer.label) == (WEB, "web")
    assert {one.id for one in allowed.peer.groups} == {WEB, WEB_PEERED, WEB_EU, WEB_FAR}


def test_an_address_that_several_members_hold_is_there_once() -> None:
    interfaces = (
        interface("0000000a", "10.1.0.10", APP, HOST),
        interface("0000000c", "10.3.0.30 10.3.0.20", f"{WEB} {WEB_PEERED}", vpc=PEERED_VPC),
        interface("0000000d", "10.3.0.20 10.3.0.3", WEB_PEERED, vpc=PEERED_VPC),
    )
    found = policy(world(EU, west(allow(tcp(443), WEB), interfaces=interfaces)))
    assert peers(found) == [
        ("10.2.0.10", "10.2.0.11", "10.2.16.0/28", "10.3.0.20", "10.3.0.3", "10.3.0.30")
    ]


def test_cidrs_and_prefix_lists_are_taken_whole() -> None:
    rule = allow(tcp(443), "10.1.0.0/16", "172.31.0.0/16", "::/0", "pl-0000000a")
    assert peers(policy(content(rule))) == [
        ("10.1.0.0/16", "172.31.0.0/16", "::/0"),
        ("10.20.0.0/16", "192.0.2.7", "fd00:20::/64"),
    ]


STALE = GroupReference(id=WEB, peering="deleted")
FOREIGN = GroupReference(id="sg-0000dead", account="210987654321")

NO_TYPE = "ICMP with a code but no type matches nothing (EC2 refuses to store it)"
UNREAD = "in what the leader reads of us-west-2"
NO_PORTS = "its ports end before they begin (EC2 refuses to store it)"
ANY_PROTOCOL = "protocol 0 means every protocol to iptables"
ANY_TYPE = "ICMP type 255 means every type to iptables"

NOBODY: list[tuple[Ingress, str, str]] = [
    (allow(tcp(443), STALE), WEB, "stale: its VPC peering connection is deleted"),
    (
        allow(tcp(443), FOREIGN),
        "sg-0000dead",
        f"no such group (account 210987654321) {UNREAD}",
    ),
    (
        allow(tcp(443), "sg-0000dead"),
        "sg-0000dead",
        f"no such group {UNREAD}",
    ),
    # A group of another region cannot be referred to: EC2's references end at the region.
    (allow(tcp(443), WEB_EU), WEB_EU, f"no such group {UNREAD}"),
    (allow(tcp(443), VPN), VPN, "'vpn-allow-all' is excluded"),
    (allow(tcp(443), "pl-0000dead"), "pl-0000dead", "its entries could not be read"),
    (
        allow(Protocol(number=0), "10.2.0.0/16"),
        "protocol 0",
        ANY_PROTOCOL,
    ),
    (allow(icmp(255, 0), "10.2.0.0/16"), "icmp 255/0", ANY_TYPE),
    (allow(icmp(255), "10.2.0.0/16"), "icmp 255", ANY_TYPE),
    (allow(icmp(-1, 3), "10.2.0.0/16"), "icmp -1/3", NO_TYPE),
    (allow(icmp(-1, 0), "10.2.0.0/16"), "icmp -1/0", NO_TYPE),
    (allow(icmpv6(-1, 3), "fd00::/64"), "icmpv6 -1/3", NO_TYPE),
    (
        allow(tcp(90, 80), "10.2.0.0/16"),
        "tcp 90-80",
        NO_PORTS,
    ),
]


@pytest.mark.parametrize(("rule", "what", "reason"), NOBODY)
def test_who_cannot_be_told_is_nobody_with_a_reason(rule: Ingress, what: str, reason: str) -> None:
    found = policy(content(rule, excluded_group_names=("vpn-allow-all",)))
    assert peers(found) == []
    ((group_id, number, told, why),) = [
        (omitted.group, omitted.rule, omitted.what, omitted.reason) for omitted in found.omitted
    ]
    assert (group_id, number, told, why) == (APP, 1, what, reason)


@pytest.mark.parametrize("service", [icmpv6(255), icmpv6(255, 255), Protocol(number=255)])
def test_high_numbers_that_mean_themselves_are_allowed(service: Service) -> None:
    assert peers(policy(content(allow(service, "fd00::/64")))) == [("fd00::/64",)]


@pytest.mark.parametrize("number", [43, 44, 51, 60])
def test_what_iptables_tells_in_one_family_only_is_told(number: int) -> None:
    header = Protocol(number=number)
    assert policy(content(allow(header, "10.2.0.0/16"))).omitted == ()
    found = policy(content(allow(header, "10.2.0.0/16", "pl-0000000a")))
    assert peers(found) == [("10.2.0.0/16",), ("10.20.0.0/16", "192.0.2.7", "fd00:20::/64")]
    (omitted,) = found.omitted
    assert omitted.what == f"protocol {number} from pl-0000000a over IPv6"


@pytest.mark.parametrize("service", [icmp(8), Protocol(number=50)])
def test_what_another_protocol_or_the_same_tells_there_is_not_missed(service: Service) -> None:
    assert policy(content(allow(service, "pl-0000000a"))).omitted == ()


def test_one_bad_peer_does_not_spoil_the_others_of_its_rule() -> None:
    rule = allow(tcp(443), "10.2.0.0/16", "pl-0000dead", STALE, API)
    found = policy(content(rule))
    assert peers(found) == [("10.2.0.0/16",), ("10.3.0.60",)]
    assert [omitted.what for omitted in found.omitted] == ["pl-0000dead", WEB]


def test_excluded_groups_allow_nothing_and_are_not_matched() -> None:
    regions = west(allow(tcp(443), WEB), allow(Everything(), "10.0.0.0/8"))
    of = world(EU, regions, excluded_group_names=("web",))
    found = policy(of)
    assert peers(found) == [("10.0.0.0/8",)]
    found = policy(world(EU, regions, excluded_group_names=("app",)))
    assert peers(found) == []
    assert [(o.group, o.rule, o.what, o.reason) for o in found.omitted] == [
        (APP, 0, "the group", "'app' is excluded")
    ]


def test_excluded_groups_are_not_matched_by_tag_either() -> None:
    of = content(
        allow(tcp(443), WEB), group_matching="tag:role", excluded_group_names=("vpn-allow-all",)
    )
    assert peers(policy(of)) == [("10.2.0.60", "10.3.0.20", "10.3.0.40")]


def test_a_group_of_the_host_that_is_not_in_the_ruleset_is_told() -> None:
    bare = west(interfaces=(interface("0000000a", "10.1.0.10", f"{APP} sg-0000dead", HOST),))
    (omitted,) = policy(world(bare)).omitted
    assert str(omitted) == "sg-0000dead: it is not in the ruleset"


def test_the_same_omission_is_told_once() -> None:
    both = (
        interface("0000000a", "10.1.0.10", APP, HOST),
        interface("0000001a", "10.1.0.11", APP, HOST, device=1),
    )
    of = world(west(allow(tcp(443), "pl-0000dead"), interfaces=both))
    assert len(policy(of).omitted) == 1


def test_the_primary_interface_is_first_whatever_its_id() -> None:
    two = (
        interface("0000000a", "10.1.0.11", WEB, HOST, device=1),
        interface("0000000b", "10.1.0.10", APP, HOST, device=0),
    )
    found = policy(world(west(allow(tcp(443), "10.2.0.0/16"), interfaces=two)))
    assert [one.id for one in found.interfaces] == ["eni-0000000b", "eni-0000000a"]
    assert [len(one.allows) for one in found.interfaces] == [1, 0]


def test_an_interface_whose_device_nobody_knows_comes_last() -> None:
    two = (
        interface("0000000a", "10.1.0.11", WEB, HOST, device=None),
        interface("0000000b", "10.1.0.10", APP, HOST, device=1),
    )
    found = policy(world(west(interfaces=two)))
    assert [one.id for one in found.interfaces] == ["eni-0000000b", "eni-0000000a"]


def test_a_host_whose_primary_interface_is_not_in_the_ruleset_is_not_known() -> None:
    other = interface("0000000b", "10.3.0.10", APP, HOST, device=1, vpc=PEERED_VPC)
    with pytest.raises(HostUnknownError, match="only eni-0000000b in vpc-"):
        policy(world(west(interfaces=(other,))))


def test_every_address_of_an_interface_is_its_own() -> None:
    many = (interface("0000000a", "10.1.0.10 10.1.0.11 10.1.16.0/28 fd00:1::10", APP, HOST),)
    (found,) = policy(world(west(interfaces=many))).interfaces
    assert [canonical(address) for address in found.addresses] == list(many[0].addresses)


def test_the_networks_of_all_vpcs_of_the_host_are_its_own() -> None:
    two = (
        interface("0000000a", "10.1.0.10", APP, HOST),
        interface("0000000b", "10.3.0.10", APP, HOST, device=1, vpc=PEERED_VPC),
        interface("0000000c", "10.3.0.20", WEB, vpc=PEERED_VPC),
    )
    found = policy(world(west(allow(tcp(443), WEB), interfaces=two)))
    assert [one.id for one in found.vpcs] == [WEST_VPC, PEERED_VPC]
    assert [cidr for one in found.vpcs for cidr in one.cidrs] == [
        "10.1.0.0/16",
        "10.11.0.0/16",
        "fd00:1::/64",
        "10.3.0.0/16",
    ]
    assert peers(found) == [()]


@pytest.mark.parametrize("region", ["us-west-2", None])
def test_a_host_is_found_with_and_without_its_region(region: str | None) -> None:
    assert policy(content(), region=region).interfaces[0].id == "eni-0000000a"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"instance_id": "i-0000dead"}, "does not know instance i-0000dead in region us-west-2"),
        ({"instance_id": "i-0000dead", "region": None}, "does not know instance i-0000dead"),
    ],
)
def test_an_unknown_host_is_told_so(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HostUnknownError) as caught:
        policy(content(), **fields)
    assert caught.value.message == f"the ruleset {message}"


def test_a_host_in_another_region_is_told_which() -> None:
    with pytest.raises(HostUnknownError) as caught:
        policy(content(), region="eu-west-1")
    assert caught.value.message == (
        f"the ruleset holds instance {HOST} in region us-west-2, not in eu-west-1"
    )
    assert caught.value.hint == "mend follower.region, or leave it to the metadata service"


@pytest.mark.parametrize("vpcs", [(), (vpc(PEERED_VPC, "10.3.0.0/16"),), (vpc(WEST_VPC),)])
def test_without_its_own_networks_nothing_is_done(vpcs: Any) -> None:
    with pytest.raises(HostUnknownError, match=f"does not hold the CIDRs of .* {WEST_VPC}"):
        policy(world(west(vpcs=vpcs)))


NO_ADDRESS = [
    "fe80::1%x\n-A INPUT -j ACCEPT",
    "10.2.0.0/255.255.0.0",
    "10.2.0.1/16",
    "10.2.0.1/32",
    "FD00::1",
    "10.2.0.1\n",
    "web",
    "",
]


@pytest.mark.parametrize("text", NO_ADDRESS)
@pytest.mark.parametrize("place", ["cidr", "prefix list", "member", "host", "vpc"])
def test_text_that_is_no_address_refuses_the_ruleset_wherever_it_stands(
    text: str, place: str
) -> None:
    rule = Ingress(service=tcp(443), cidrs=(text,) if place == "cidr" else ())
    lists = (PrefixList(id="pl-0000000a", cidrs=(text,)),) if place == "prefix list" else ()
    region = west(
        rule,
        allow(tcp(80), "pl-0000000a", WEB),
        prefix_lists=lists,
        vpcs=(vpc(WEST_VPC, "10.1.0.0/16", *([text] if place == "vpc" else [])),),
        interfaces=tuple(
            replace(one, addresses=(text,)) if place == where else one
            for where, one in (
                ("host", interface("0000000a", "10.1.0.10", APP, HOST)),
                ("member", interface("0000000b", "10.1.0.20", WEB)),
            )
        ),
    )
    with pytest.raises(SignatureError):
        policy(world(region), IpsecScope())
