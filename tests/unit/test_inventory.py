"""What each field of EC2's replies means, as tables from real-looking replies to content."""

import random
from typing import Any, get_args, get_type_hints, is_typeddict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reyes import replies
from reyes.inventory import Inventory, named_prefix_lists, view
from reyes.net import Everything, Icmp, Ports, Protocol, Service
from reyes.ruleset import (
    Content,
    GroupReference,
    Header,
    Ingress,
    Interface,
    Region,
    SecurityGroup,
    count,
    decode,
    encode,
)
from tests.inventories import build

OWNER = "123456789012"
OTHER = "210987654321"
VPC = "vpc-0a1b2c3d"


def permission(protocol: str = "tcp", **fields: Any) -> dict[str, Any]:
    """An IpPermission as DescribeSecurityGroups writes it: its empty lists are there."""
    lists: dict[str, Any] = {
        "UserIdGroupPairs": [],
        "IpRanges": [],
        "Ipv6Ranges": [],
        "PrefixListIds": [],
    }
    return {"IpProtocol": protocol, **lists, **fields}


def open_to_all(protocol: str, **fields: Any) -> dict[str, Any]:
    return permission(protocol, IpRanges=[{"CidrIp": "0.0.0.0/0"}], **fields)


def group(*permissions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "GroupId": "sg-0aaaaaaaaaaaaaaaa",
        "GroupName": "web",
        "Description": "the web",
        "OwnerId": OWNER,
        "VpcId": VPC,
        "IpPermissions": list(permissions),
        "IpPermissionsEgress": [open_to_all("-1")],
        **fields,
    }


def interface(**fields: Any) -> dict[str, Any]:
    return {
        "NetworkInterfaceId": "eni-0aaaaaaaaaaaaaaaa",
        "VpcId": VPC,
        "OwnerId": OWNER,
        "Status": "in-use",
        "InterfaceType": "interface",
        "RequesterManaged": False,
        "PrivateIpAddress": "10.1.0.10",
        "PrivateIpAddresses": [
            {
                "Primary": True,
                "PrivateIpAddress": "10.1.0.10",
                "Association": {"PublicIp": "203.0.113.10", "IpOwnerId": OWNER},
            }
        ],
        "Association": {"PublicIp": "203.0.113.10", "IpOwnerId": OWNER},
        "Ipv6Addresses": [],
        "Groups": [{"GroupId": "sg-0aaaaaaaaaaaaaaaa", "GroupName": "web"}],
        "Attachment": {
            "AttachmentId": "eni-attach-1",
            "DeviceIndex": 0,
            "InstanceId": "i-0aaaaaaaaaaaaaaaa",
            "InstanceOwnerId": OWNER,
            "Status": "attached",
        },
        **fields,
    }


def instance(state: str, identifier: str = "i-0aaaaaaaaaaaaaaaa") -> dict[str, Any]:
    return {"InstanceId": identifier, "State": {"Code": 16, "Name": state}}


def inventory(**replies: Any) -> Inventory:
    return Inventory(**{"region": "us-west-2", "prefix_lists": {}, **replies})


def content_of(*inventories: Inventory, matching: str = "name", excluded: Any = ()) -> Content:
    return build(inventories, matching, excluded)


def region_of(*inventories: Inventory, **options: Any) -> Region:
    (region,) = content_of(*inventories, **options).regions
    return region


def group_of(*permissions: dict[str, Any]) -> SecurityGroup:
    (found,) = region_of(inventory(groups=[group(*permissions)])).groups
    return found


def rule_of(*permissions: dict[str, Any]) -> Ingress:
    (rule,) = group_of(*permissions).ingress
    return rule


def interface_of(**fields: Any) -> Interface:
    (found,) = region_of(inventory(interfaces=[interface(**fields)])).interfaces
    return found


@pytest.mark.parametrize(
    ("protocol", "first", "last", "service"),
    [
        ("tcp", 443, 443, Ports(protocol="tcp", first=443, last=443)),
        ("6", 443, 443, Ports(protocol="tcp", first=443, last=443)),
        ("udp", 33434, 33534, Ports(protocol="udp", first=33434, last=33534)),
        ("17", 53, 53, Ports(protocol="udp", first=53, last=53)),
        ("tcp", 0, 65535, Ports(protocol="tcp", first=0, last=65535)),
        ("tcp", -1, -1, Ports(protocol="tcp", first=0, last=65535)),
        ("udp", None, None, Ports(protocol="udp", first=0, last=65535)),
        ("icmp", -1, -1, Icmp(protocol="icmp", type=-1, code=-1)),
        ("icmp", 8, -1, Icmp(protocol="icmp", type=8, code=-1)),
        ("icmp", 8, 0, Icmp(protocol="icmp", type=8, code=0)),
        ("icmp", 15, None, Icmp(protocol="icmp", type=15, code=-1)),
        ("1", 3, 4, Icmp(protocol="icmp", type=3, code=4)),
        ("icmp", -1, 3, Icmp(protocol="icmp", type=-1, code=3)),
        ("icmpv6", None, None, Icmp(protocol="icmpv6", type=-1, code=-1)),
        ("58", 128, 0, Icmp(protocol="icmpv6", type=128, code=0)),
        ("-1", None, None, Everything()),
        ("-1", -1, -1, Everything()),
        ("-1", 22, 22, Everything()),
        ("50", None, None, Protocol(number=50)),
        ("47", 80, 90, Protocol(number=47)),
        ("0", None, None, Protocol(number=0)),
        ("255", None, None, Protocol(number=255)),
    ],
)
def test_protocol_and_ports_become_a_service(
    protocol: str, first: int | None, last: int | None, service: Service
) -> None:
    bounds = {"FromPort": first, "ToPort": last}
    given_bounds = {name: bound for name, bound in bounds.items() if bound is not None}

    assert rule_of(open_to_all(protocol, **given_bounds)).service == service
    assert rule_of(open_to_all(protocol, **bounds)).service == service


@pytest.mark.parametrize(
    ("protocol", "first", "last"),
    [
        ("tcp", 7, 3),
        ("tcp", 22, -1),
        ("tcp", -1, 80),
        ("tcp", None, 80),
        ("udp", 53, None),
        ("tcp", 0, 65536),
        ("udp", -2, 5),
        ("icmp", 256, 0),
        ("icmp", -2, 0),
        ("icmp", 8, -2),
        ("icmp", 8, 256),
        ("256", None, None),
        ("06", None, None),
        ("006", 443, 443),
        ("00", None, None),
        ("gre", None, None),
        ("", None, None),
    ],
)
def test_what_no_packet_can_be_is_left_out(
    protocol: str, first: int | None, last: int | None
) -> None:
    impossible = open_to_all(protocol, FromPort=first, ToPort=last)

    assert group_of(impossible, open_to_all("50")).ingress == (
        Ingress(service=Protocol(number=50), cidrs=("0.0.0.0/0",)),
    )


def test_addresses_of_both_families_are_canonical_sorted_and_single() -> None:
    rule = rule_of(
        permission(
            IpRanges=[
                {"CidrIp": "10.9.0.0/16", "Description": "second"},
                {"CidrIp": "100.68.0.18/18"},
                {"CidrIp": "10.1.2.3/32"},
                {"CidrIp": "10.9.0.0/16"},
                {"CidrIp": "0.0.0.0/0"},
            ],
            Ipv6Ranges=[{"CidrIpv6": "2001:DB8:0:0::/64"}, {"CidrIpv6": "2001:db8::1/128"}],
        )
    )

    assert rule.cidrs == (
        "0.0.0.0/0",
        "10.1.2.3",
        "10.9.0.0/16",
        "100.68.0.0/18",
        "2001:db8::/64",
        "2001:db8::1",
    )


def test_an_address_that_is_none_is_left_out() -> None:
    ranges = [{"CidrIp": "10.1.0.0/33"}, {"CidrIp": "everybody"}, {}, {"CidrIp": "10.2.0.0/16"}]
    with_a_scope = [{"CidrIpv6": "fe80::1%eth0"}, {"CidrIpv6": "fe80::%eth0/64"}]

    assert rule_of(permission(IpRanges=ranges, Ipv6Ranges=with_a_scope)).cidrs == ("10.2.0.0/16",)


def test_null_and_missing_lists_are_empty() -> None:
    nulls = dict.fromkeys(("UserIdGroupPairs", "IpRanges", "Ipv6Ranges", "PrefixListIds"))

    assert group_of({"IpProtocol": "-1", **nulls}, {"IpProtocol": "50"}).ingress == ()
    assert region_of(inventory(groups=[group() | {"IpPermissions": None}])).groups[0].ingress == ()
    bare = interface_of(
        PrivateIpAddresses=None,
        Ipv6Addresses=None,
        Ipv4Prefixes=None,
        Groups=None,
        Attachment=None,
    )
    assert bare == Interface(id=bare.id, vpc=VPC, addresses=("10.1.0.10",))


@pytest.mark.parametrize(
    ("pair", "reference"),
    [
        (
            {"GroupId": "sg-00000001", "UserId": OWNER},
            GroupReference(id="sg-00000001"),
        ),
        (
            {"GroupId": "sg-00000001", "UserId": OTHER},
            GroupReference(id="sg-00000001", account=OTHER),
        ),
        (
            {"GroupId": "sg-00000001"},
            GroupReference(id="sg-00000001"),
        ),
        (
            {"GroupId": "sg-00000001", "UserId": "amazon-elb", "GroupName": "amazon-elb-sg"},
            GroupReference(id="sg-00000001"),
        ),
        (
            {
                "GroupId": "sg-00000001",
                "UserId": OTHER,
                "VpcId": "vpc-0b0b0b0b",
                "VpcPeeringConnectionId": "pcx-0a0a0a0a",
                "PeeringStatus": "active",
            },
            GroupReference(id="sg-00000001", account=OTHER),
        ),
        (
            {
                "GroupId": "sg-00000001",
                "UserId": OWNER,
                "VpcId": "vpc-0b0b0b0b",
                "VpcPeeringConnectionId": "pcx-0a0a0a0a",
                "PeeringStatus": "deleted",
            },
            GroupReference(id="sg-00000001", peering="deleted"),
        ),
    ],
    ids=["own", "other account", "deleted group", "of AWS", "peered", "stale peering"],
)
def test_pairs_become_references(pair: dict[str, str], reference: GroupReference) -> None:
    assert rule_of(permission(UserIdGroupPairs=[pair])).groups == (reference,)


def test_a_pair_without_group_id_is_nobody() -> None:
    nobody = permission(UserIdGroupPairs=[{"UserId": OWNER, "GroupName": "web"}])

    assert group_of(nobody).ingress == ()


def test_permissions_of_one_service_are_one_rule() -> None:
    rule = rule_of(
        permission("tcp", FromPort=22, ToPort=22, IpRanges=[{"CidrIp": "10.1.0.0/16"}]),
        permission("6", FromPort=22, ToPort=22, PrefixListIds=[{"PrefixListId": "pl-0000000a"}]),
    )

    assert rule == Ingress(
        service=Ports(protocol="tcp", first=22, last=22),
        cidrs=("10.1.0.0/16",),
        prefix_lists=("pl-0000000a",),
    )


def test_egress_is_not_mirrored() -> None:
    assert group_of().ingress == ()


def test_excluded_groups_keep_their_name_and_lose_their_rules() -> None:
    region = region_of(inventory(groups=[group(open_to_all("-1"))]), excluded=["web"])

    assert region.groups == (
        SecurityGroup(id="sg-0aaaaaaaaaaaaaaaa", name="web", vpc=VPC, account=OWNER),
    )


@pytest.mark.parametrize(
    ("matching", "tag"),
    [("name", None), ("id", None), ("tag:role", "front"), ("tag:empty", None), ("tag:x", None)],
)
def test_only_the_matching_tag_is_published(matching: str, tag: str | None) -> None:
    tags = [
        {"Key": "Name", "Value": "secret project"},
        {"Key": "name", "Value": "secret project"},
        {"Key": "role", "Value": "front"},
        {"Key": "empty", "Value": ""},
    ]

    (found,) = region_of(inventory(groups=[group(Tags=tags)]), matching=matching).groups

    assert found.tag == tag


def test_all_private_addresses_are_members_and_public_ones_are_not() -> None:
    found = interface_of(
        PrivateIpAddresses=[
            {
                "Primary": True,
                "PrivateIpAddress": "10.1.0.10",
                "Association": {"PublicIp": "203.0.113.10"},
            },
            {"Primary": False, "PrivateIpAddress": "10.1.0.11"},
        ],
        Ipv6Addresses=[{"Ipv6Address": "2001:DB8::10", "IsPrimaryIpv6": False}],
        Ipv4Prefixes=[{"Ipv4Prefix": "10.1.16.0/28"}],
        Ipv6Prefixes=[{"Ipv6Prefix": "2001:db8:0:1::/80"}],
    )

    assert found.addresses == (
        "10.1.0.10",
        "10.1.0.11",
        "10.1.16.0/28",
        "2001:db8:0:1::/80",
        "2001:db8::10",
    )


def test_an_interface_of_aws_itself_has_no_instance() -> None:
    found = interface_of(
        InterfaceType="network_load_balancer",
        RequesterManaged=True,
        Attachment={"DeviceIndex": 1, "InstanceOwnerId": "amazon-elb", "Status": "attached"},
    )

    assert (found.instance, found.device) == (None, None)
    assert found.groups == ("sg-0aaaaaaaaaaaaaaaa",)


@pytest.mark.parametrize(
    ("state", "is_member"),
    [
        ("pending", True),
        ("running", True),
        ("stopping", True),
        ("stopped", True),
        ("shutting-down", True),
        ("terminated", False),
    ],
)
def test_only_terminated_instances_lose_their_interfaces(state: str, is_member: bool) -> None:
    region = region_of(inventory(interfaces=[interface()], instances=[instance(state)]))

    assert bool(region.interfaces) is is_member


def test_an_instance_counts_by_its_interfaces() -> None:
    second = interface(
        NetworkInterfaceId="eni-0bbbbbbbbbbbbbbbb",
        PrivateIpAddress="10.1.1.10",
        PrivateIpAddresses=[{"Primary": True, "PrivateIpAddress": "10.1.1.10"}],
        Groups=[{"GroupId": "sg-00000002"}, {"GroupId": "sg-00000001"}],
        Attachment={"DeviceIndex": 1, "InstanceId": "i-0aaaaaaaaaaaaaaaa"},
    )
    content = content_of(
        inventory(
            interfaces=[second, interface()],
            instances=[instance("running"), instance("running", "i-0cccccccccccccccc")],
        )
    )
    primary, secondary = content.regions[0].interfaces

    assert (primary.device, secondary.device) == (0, 1)
    assert secondary.groups == ("sg-00000001", "sg-00000002")
    assert (count(content, 1).instances, count(content, 1).members) == (1, 3)


def test_all_associated_cidrs_belong_to_a_vpc() -> None:
    vpc = {
        "VpcId": VPC,
        "OwnerId": OWNER,
        "CidrBlock": "10.1.0.0/16",
        "CidrBlockAssociationSet": [
            {"CidrBlock": "10.1.0.0/16", "CidrBlockState": {"State": "associated"}},
            {"CidrBlock": "10.8.0.0/16", "CidrBlockState": {"State": "disassociated"}},
            {"CidrBlock": "100.64.0.0/16", "CidrBlockState": {"State": "associated"}},
        ],
        "Ipv6CidrBlockAssociationSet": [
            {"Ipv6CidrBlock": "2001:db8::/56", "Ipv6CidrBlockState": {"State": "associated"}},
            {"Ipv6CidrBlock": "2001:db9::/56", "Ipv6CidrBlockState": {"State": "failed"}},
        ],
    }

    (found,) = region_of(inventory(vpcs=[vpc])).vpcs

    assert (found.id, found.account) == (VPC, OWNER)
    assert found.cidrs == ("10.1.0.0/16", "100.64.0.0/16", "2001:db8::/56")


def test_a_vpc_without_networks_of_a_family_is_one_all_the_same() -> None:
    (found,) = region_of(inventory(vpcs=[{"VpcId": VPC, "OwnerId": OWNER}])).vpcs
    assert found.cidrs == ()


def test_only_prefix_lists_that_a_rule_names_are_published() -> None:
    naming = permission(PrefixListIds=[{"PrefixListId": "pl-0000000a"}])
    unreadable = permission("50", PrefixListIds=[{"PrefixListId": "pl-0000000b"}])
    entries = {
        "pl-0000000a": [{"Cidr": "192.0.2.0/24"}, {"Cidr": "10.1.0.1/32", "Description": "x"}],
        "pl-0000000c": [{"Cidr": "198.51.100.0/24"}],
    }

    region = region_of(inventory(groups=[group(naming, unreadable)], prefix_lists=entries))

    assert [(p.id, p.cidrs) for p in region.prefix_lists] == [
        ("pl-0000000a", ("10.1.0.1", "192.0.2.0/24"))
    ]


def test_prefix_lists_of_excluded_groups_are_not_asked_for() -> None:
    def naming(identifier: str) -> dict[str, Any]:
        return permission(PrefixListIds=[{"PrefixListId": identifier}])

    groups: list[Any] = [
        group(naming("pl-0000000b"), naming("pl-0000000a")),
        group(naming("pl-0000000a"), GroupName="db"),
        group(naming("pl-0000000c"), GroupName="vpn-allow-all"),
        group(GroupName="bare", IpPermissions=None),
    ]

    seen = view(inventory(groups=groups), "name", ["vpn-allow-all"])

    assert named_prefix_lists(seen.groups) == {"pl-0000000a", "pl-0000000b"}


def test_groups_of_no_vpc_are_of_the_past() -> None:
    classic = group()
    del classic["VpcId"]

    assert region_of(inventory(groups=[classic])).groups == ()


def test_what_two_accounts_see_counts_once_with_all_that_is_known() -> None:
    tags = [{"Key": "role", "Value": "front"}]
    seen_by_owner = inventory(groups=[group(Tags=tags)], interfaces=[interface()])
    seen_by_other = inventory(
        groups=[group()],
        interfaces=[interface(Attachment={"InstanceOwnerId": OWNER, "Status": "attached"})],
    )

    one_way = region_of(seen_by_owner, seen_by_other, matching="tag:role")
    other_way = region_of(seen_by_other, seen_by_owner, matching="tag:role")

    assert one_way == other_way
    assert [g.tag for g in one_way.groups] == ["front"]
    assert [i.instance for i in one_way.interfaces] == ["i-0aaaaaaaaaaaaaaaa"]


def test_of_two_views_the_longer_one_counts() -> None:
    one, both = group(open_to_all("6")), group(open_to_all("6"), open_to_all("17"))
    for groups in ((one, both), (both, one)):
        (found,) = region_of(*(inventory(groups=[each]) for each in groups)).groups
        assert len(found.ingress) == 2


def test_a_tag_counts_for_more_than_a_rule_that_came_between_two_readings() -> None:
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": f"10.{n}.0.0/16"} for n in range(9)]}
    seen_by_owner = inventory(groups=[group(Tags=[{"Key": "role", "Value": "front"}])])
    seen_by_other = inventory(groups=[group(everything)])

    for inventories in ((seen_by_owner, seen_by_other), (seen_by_other, seen_by_owner)):
        assert [g.tag for g in region_of(*inventories, matching="tag:role").groups] == ["front"]


def test_an_instance_that_only_its_own_account_sees_ended_is_ended_for_all() -> None:
    network_owner = inventory(interfaces=[interface()])
    participant = inventory(instances=[instance("terminated")])

    assert region_of(network_owner, participant).interfaces == ()


class Watched(dict[str, Any]):
    """An item of a reply that notes which of its fields are looked at, by the item's type."""

    def __init__(self, item: dict[str, Any], reply: Any, seen: set[tuple[str, str]]) -> None:
        self._name, self._seen = reply.__name__, seen
        hints = get_type_hints(reply)
        super().__init__(
            {name: watched(inner, hints.get(name), seen) for name, inner in item.items()}
        )

    def __getitem__(self, name: str) -> Any:
        self._seen.add((self._name, name))
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._seen.add((self._name, name))
        return super().get(name, default)


def watched(value: Any, hint: Any, seen: set[tuple[str, str]]) -> Any:
    match value:
        case list():
            return [watched(item, (*get_args(hint), hint)[0], seen) for item in value]
        case dict() if is_typeddict(hint):
            return Watched(value, hint, seen)
        case _:
            return value


def test_the_fields_that_are_looked_at_are_those_that_replies_names() -> None:
    everything = permission(
        FromPort=80,
        ToPort=80,
        IpRanges=[{"CidrIp": "0.0.0.0/0"}],
        Ipv6Ranges=[{"CidrIpv6": "::/0"}],
        PrefixListIds=[{"PrefixListId": "pl-0000000a"}],
        UserIdGroupPairs=[{"GroupId": "sg-0000000b", "UserId": OTHER}],
    )
    tags = [{"Key": "role", "Value": "front"}]
    address = interface(
        Ipv6Addresses=[{"Ipv6Address": "2001:db8::1"}],
        Ipv4Prefixes=[{"Ipv4Prefix": "10.1.16.0/28"}],
        Ipv6Prefixes=[{"Ipv6Prefix": "2001:db8::/80"}],
    )
    state = {"State": "associated"}
    vpc = {
        "VpcId": VPC,
        "OwnerId": OWNER,
        "CidrBlockAssociationSet": [{"CidrBlock": "10.1.0.0/16", "CidrBlockState": state}],
        "Ipv6CidrBlockAssociationSet": [
            {"Ipv6CidrBlock": "2001:db8::/56", "Ipv6CidrBlockState": state}
        ],
    }
    seen: set[tuple[str, str]] = set()

    view(
        inventory(
            vpcs=watched([vpc], replies.Vpc, seen),
            groups=watched([group(everything, Tags=tags)], replies.SecurityGroup, seen),
            instances=watched([instance("terminated")], replies.Instance, seen),
            interfaces=watched([address], replies.NetworkInterface, seen),
            prefix_lists={
                "pl-0000000a": watched([{"Cidr": "192.0.2.0/24"}], replies.PrefixListEntry, seen)
            },
        ),
        "tag:role",
        (),
    )

    types = [kind for kind in vars(replies).values() if is_typeddict(kind)]
    named = {(kind.__name__, name) for kind in types for name in get_type_hints(kind)}
    # The reader itself looks for the instances of a reservation.
    assert seen | {("Reservation", "Instances")} == named


def test_excluded_names_are_sorted_and_single() -> None:
    names = [*"ghfebcda", "a"]
    assert content_of(excluded=names).excluded_group_names == tuple("abcdefgh")


def test_regions_are_apart_and_sorted() -> None:
    west, east = inventory(groups=[group()]), inventory(region="us-east-1", groups=[group()])

    content = content_of(west, east, matching="id", excluded=["z", "a", "z"])

    assert [region.name for region in content.regions] == ["us-east-1", "us-west-2"]
    assert [len(region.groups) for region in content.regions] == [1, 1]
    assert (content.group_matching, content.excluded_group_names) == ("id", ("a", "z"))


NUMBERS = st.integers(0, 4)
PERMISSIONS = st.builds(
    permission,
    st.sampled_from(["tcp", "6", "udp", "icmp", "58", "-1", "50", "odd"]),
    FromPort=st.none() | st.integers(-1, 9),
    ToPort=st.none() | st.integers(-1, 9),
    IpRanges=st.lists(
        st.builds(lambda a, p: {"CidrIp": f"10.{a}.0.0/{p}"}, NUMBERS, st.sampled_from([8, 16])),
        max_size=3,
    ),
    Ipv6Ranges=st.none() | st.just([{"CidrIpv6": "2001:db8::/32"}]),
    PrefixListIds=st.lists(
        st.builds(lambda n: {"PrefixListId": f"pl-0000000{n}"}, NUMBERS), max_size=2
    ),
    UserIdGroupPairs=st.lists(
        st.builds(
            lambda n, user: {"GroupId": f"sg-0000000{n}", "UserId": user},
            NUMBERS,
            st.sampled_from([OWNER, OTHER]),
        ),
        max_size=3,
    ),
)
GROUPS = st.builds(
    lambda number, name, permissions, tags: group(
        *permissions, GroupId=f"sg-0000000{number}", GroupName=name, Tags=tags
    ),
    NUMBERS,
    st.sampled_from(["web", "db", "vpn-allow-all"]),
    st.lists(PERMISSIONS, max_size=4),
    st.sampled_from([[], [{"Key": "role", "Value": "front"}]]),
)
INTERFACES = st.builds(
    lambda number, addresses, groups: interface(
        NetworkInterfaceId=f"eni-0000000{number}",
        PrivateIpAddresses=[{"PrivateIpAddress": f"10.1.0.{address}"} for address in addresses],
        Groups=[{"GroupId": f"sg-0000000{member}"} for member in groups],
        Attachment={"DeviceIndex": 0, "InstanceId": f"i-0000000{number}"},
    ),
    NUMBERS,
    st.lists(NUMBERS, max_size=3),
    st.lists(NUMBERS, max_size=3),
)
INVENTORIES = st.lists(
    st.builds(
        Inventory,
        region=st.sampled_from(["us-west-2", "eu-west-1"]),
        groups=st.lists(GROUPS, max_size=4),
        interfaces=st.lists(INTERFACES, max_size=4),
        instances=st.lists(
            st.builds(
                lambda n, state: instance(state, f"i-0000000{n}"),
                NUMBERS,
                st.sampled_from(["running", "terminated"]),
            ),
            max_size=3,
        ),
        prefix_lists=st.dictionaries(
            NUMBERS.map(lambda n: f"pl-0000000{n}"),
            st.lists(NUMBERS.map(lambda n: {"Cidr": f"192.0.2.{n}/32"}), max_size=3),
            max_size=3,
        ),
    ),
    max_size=4,
)


def document_of(content: Content) -> bytes:
    header = Header(
        environment="production",
        serial=1,
        generated_at=1,
        not_after=2,
        generator="test",
        counts=count(content, sources=1),
    )
    return encode(header, content)


def shuffled(value: Any, order: random.Random) -> Any:
    """The same replies with every list, at every depth, in another order."""
    match value:
        case list():
            return order.sample([shuffled(item, order) for item in value], len(value))
        case dict():
            return {key: shuffled(value[key], order) for key in value}
        case Inventory():
            names = ("vpcs", "groups", "instances", "interfaces", "prefix_lists")
            fields = {name: getattr(value, name) for name in names}
            return Inventory(region=value.region, **shuffled(fields, order))
        case _:
            return value


@settings(max_examples=50, deadline=None)
@given(INVENTORIES, st.randoms(use_true_random=False), st.sampled_from(["name", "tag:role"]))
def test_the_order_of_replies_never_changes_a_byte(
    inventories: list[Inventory], order: random.Random, matching: str
) -> None:
    one_way = build(inventories, matching, ["vpn-allow-all"])
    other_way = build(shuffled(inventories, order), matching, ["vpn-allow-all"])

    assert document_of(one_way) == document_of(other_way)


@settings(max_examples=50, deadline=None)
@given(INVENTORIES)
def test_whatever_is_built_can_be_read_back(inventories: list[Inventory]) -> None:
    content = build(inventories, "tag:role", [])

    assert decode(document_of(content)).content == content
