"""From EC2's replies, whatever they say, to the text that a kernel is fed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reyes.errors import HostUnknownError, SourceError
from reyes.host import Host, IpsecScope
from reyes.inventory import Inventory
from reyes.net import parse_network
from reyes.policy import resolve_content
from reyes.ruleset import DocumentError, decode, encode
from tests.fuzz.grammar import check_payloads
from tests.fuzz.mutations import WORDS, texts
from tests.inventories import build
from tests.worlds import ACCOUNT, header_for

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
INSTANCE = "i-0000000a"
VPC = "vpc-0000000a"
APP, WEB = "sg-0000000a", "sg-0000000b"


def replies(name: str = "web") -> dict[str, Any]:
    """A host whose group is open to another group; `name` stands wherever people may write."""
    tags = [{"Key": "role", "Value": name}, {"Key": name, "Value": name}]
    pair = {"GroupId": WEB, "UserId": ACCOUNT, "GroupName": name, "Description": name}
    permission = {
        "IpProtocol": "tcp",
        "FromPort": 443,
        "ToPort": 443,
        "IpRanges": [{"CidrIp": "192.0.2.0/24", "Description": name}],
        "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32", "Description": name}],
        "PrefixListIds": [{"PrefixListId": "pl-0000000a", "Description": name}],
        "UserIdGroupPairs": [pair],
    }
    icmp = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": permission["IpRanges"]}
    number = {"IpProtocol": "50", "UserIdGroupPairs": [pair]}
    group = {"VpcId": VPC, "OwnerId": ACCOUNT, "Description": name, "Tags": tags}
    interface = {"VpcId": VPC, "Description": name, "TagSet": tags, "PrivateDnsName": name}
    return {
        "vpcs": [
            {
                "VpcId": VPC,
                "OwnerId": ACCOUNT,
                "Tags": tags,
                "CidrBlockAssociationSet": [
                    {"CidrBlock": "10.1.0.0/16", "CidrBlockState": {"State": "associated"}}
                ],
                "Ipv6CidrBlockAssociationSet": [
                    {"Ipv6CidrBlock": "fd00::/56", "Ipv6CidrBlockState": {"State": "associated"}}
                ],
            }
        ],
        "groups": [
            {
                **group,
                "GroupId": APP,
                "GroupName": f"{name}-app",
                "IpPermissions": [permission, icmp, number],
            },
            {**group, "GroupId": WEB, "GroupName": name},
        ],
        "instances": [{"InstanceId": INSTANCE, "State": {"Name": "running"}, "Tags": tags}],
        "interfaces": [
            {
                **interface,
                "NetworkInterfaceId": "eni-0000000a",
                "Attachment": {"InstanceId": INSTANCE, "DeviceIndex": 0},
                "PrivateIpAddress": "10.1.0.10",
                "PrivateIpAddresses": [{"PrivateIpAddress": "10.1.0.11"}],
                "Ipv6Addresses": [{"Ipv6Address": "fd00::10"}],
                "Groups": [{"GroupId": APP, "GroupName": name}],
            },
            {
                **interface,
                "NetworkInterfaceId": "eni-0000000b",
                "PrivateIpAddress": "10.2.0.20",
                "Ipv4Prefixes": [{"Ipv4Prefix": "10.2.16.0/28"}],
                "Ipv6Prefixes": [{"Ipv6Prefix": "fd01::/80"}],
                "Groups": [{"GroupId": WEB, "GroupName": name}],
            },
        ],
        "prefix_lists": {"pl-0000000a": [{"Cidr": "198.51.100.0/24", "Description": name}]},
    }


def carry(said: dict[str, Any], matching: str) -> int:
    """Take replies all the way to payloads; return how many lines of them there are."""
    content = build([Inventory(region="us-west-2", **said)], matching, ("excluded",))
    text = encode(header_for(content, 1_795_000_000), content)
    host = Host(instance_id=INSTANCE, region=None, scope=IpsecScope())
    return check_payloads(resolve_content(decode(text).content, host))


PLAIN = {matching: carry(replies(), matching) for matching in ("name", "tag:role")}


@pytest.mark.parametrize("word", WORDS[1:], ids=lambda word: ascii(word[:20]))
def test_names_that_mean_something_elsewhere_reach_no_payload(word: str) -> None:
    for matching, lines in PLAIN.items():
        assert carry(replies(word), matching) == lines


@settings(QUICK, max_examples=100)
@given(texts().filter(lambda text: text not in {"", "excluded"}))
def test_names_of_any_kind_reach_no_payload(name: str) -> None:
    assert carry(replies(name), "name") == PLAIN["name"]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a reply, as its holder and the key there."""
    keys: Any = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def of_its_type(value: Any) -> st.SearchStrategy[Any]:
    match value:
        case str():
            return texts() | st.sampled_from(["-1", "6", "06", "256", "9" * 5000, "\u0663", "all"])
        case int():
            return st.none() | st.sampled_from([-(2**63), -2, -1, 0, 255, 65_536, 2**63, 10**400])
        case list() if value:
            return st.none() | st.lists(st.sampled_from(value), max_size=3)
        case _:
            return st.just({})


@st.composite
def spoilt_replies(draw: st.DrawFn) -> dict[str, Any]:
    """Replies in which up to three values are missing, or others of their type; lists are null."""
    said: dict[str, Any] = json.loads(json.dumps(replies()))  # no two places share a part
    for _ in range(draw(st.integers(1, 3))):
        # What holds the pages of each call is our own.
        own = (said, said["prefix_lists"])
        inside = [place for place in places(said) if not any(place[0] is one for one in own)]
        holder, key = draw(st.sampled_from(inside))
        if draw(st.booleans()):
            del holder[key]
        elif holder[key] is not None:
            holder[key] = draw(of_its_type(holder[key]))
    return said


@settings(QUICK, max_examples=200)
@given(spoilt_replies(), st.sampled_from(["name", "id", "tag:role"]))
def test_replies_of_any_kind_are_carried_or_refused(said: dict[str, Any], matching: str) -> None:
    try:
        assert carry(said, matching) > 0
    except (SourceError, DocumentError, HostUnknownError):
        return


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("vpcs", "VpcId"),
        ("vpcs", "OwnerId"),
        ("groups", "GroupId"),
        ("groups", "GroupName"),
        ("instances", "State"),
        ("interfaces", "NetworkInterfaceId"),
        ("interfaces", "VpcId"),
    ],
)
def test_what_ec2_always_says_must_be_there(kind: str, key: str) -> None:
    said = replies()
    del said[kind][0][key]
    with pytest.raises(SourceError, match=f"lacks '{key}'"):
        carry(said, "name")


def test_an_address_with_a_scope_is_none() -> None:
    said = replies()
    said["interfaces"][1]["Ipv6Prefixes"] = [{"Ipv6Prefix": "fe80::%eth0/64"}]
    content = build([Inventory(region="us-west-2", **said)], "name", ())
    addresses = [a for interface in content.regions[0].interfaces for a in interface.addresses]
    assert all(parse_network(address) for address in addresses)
    assert len(addresses) == 5


@pytest.mark.parametrize(
    "protocol", ["9" * 5000, "256", "-2", "", "\u0663", "\u00b2", "6.0", "any"]
)
def test_a_protocol_that_is_none_allows_nothing(protocol: str) -> None:
    said = replies()
    said["groups"][0]["IpPermissions"][0]["IpProtocol"] = protocol
    assert 0 < carry(said, "name") < PLAIN["name"]
