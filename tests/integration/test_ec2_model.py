"""Replies that are parsed by the model that is cut, and by botocore's own: they mean the same."""

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any, get_args, get_type_hints, is_typeddict

import botocore.session
import pytest

from reyes.adapters import ec2 as adapter
from reyes.adapters.ec2 import Ec2Reader
from reyes.adapters.ec2_model import CALLS, cut, cut_model
from reyes.config import SourceConfig
from reyes.inventory import Inventory, View, merge, view
from reyes.ruleset import Content
from tests.bench.aws_server import aws_server
from tests.bench.generator import SHARES, Size, make_world
from tests.bench.replies import render_region
from tests.fakes.ec2_server import Ec2Server, Item, ec2_server

MEMBERS = {
    "vpcs": CALLS["DescribeVpcs"].reply,
    "groups": CALLS["DescribeSecurityGroups"].reply,
    "interfaces": CALLS["DescribeNetworkInterfaces"].reply,
}
TAGS = [{"key": "role", "value": "front"}, {"key": "Name", "value": "web"}]
PAIRS = [
    {"groupId": "sg-0000000b", "userId": "123456789012"},
    {"groupId": "sg-0000000c", "userId": "210987654321", "peeringStatus": "active"},
    {"groupId": "sg-0000000d", "userId": "210987654321", "peeringStatus": "deleted"},
]
WORLD: dict[str, list[Item]] = {
    "DescribeVpcs": [
        {
            "vpcId": "vpc-0a1b2c3d",
            "ownerId": "123456789012",
            "cidrBlock": "10.1.0.0/16",
            "state": "available",
            "tagSet": TAGS,
            "cidrBlockAssociationSet": [
                {
                    "associationId": f"vpc-cidr-assoc-{state}",
                    "cidrBlock": f"10.{number}.0.0/16",
                    "cidrBlockState": {"state": state, "statusMessage": "so it is"},
                }
                for number, state in enumerate(("associated", "disassociated"), start=1)
            ],
            "ipv6CidrBlockAssociationSet": [
                {
                    "ipv6CidrBlock": "2001:db8::/56",
                    "ipv6CidrBlockState": {"state": "associated"},
                    "ipv6Pool": "Amazon",
                }
            ],
        }
    ],
    "DescribeSecurityGroups": [
        {
            "groupId": "sg-0000000a",
            "groupName": "web",
            "groupDescription": "the web",
            "ownerId": "123456789012",
            "vpcId": "vpc-0a1b2c3d",
            "tagSet": TAGS,
            "ipPermissions": [
                {
                    "ipProtocol": "tcp",
                    "fromPort": 80,
                    "toPort": 443,
                    "groups": PAIRS,
                    "ipRanges": [{"cidrIp": "192.0.2.0/24", "description": "office"}],
                    "ipv6Ranges": [{"cidrIpv6": "2001:db8:1::/48", "description": "office"}],
                    "prefixListIds": [{"prefixListId": "pl-0000000a", "description": "s3"}],
                },
            ],
            "ipPermissionsEgress": [{"ipProtocol": "-1", "ipRanges": [{"cidrIp": "0.0.0.0/0"}]}],
        },
        {"groupId": "sg-0000000e", "groupName": "classic", "ownerId": "123456789012"},
    ],
    "DescribeNetworkInterfaces": [
        {
            "networkInterfaceId": f"eni-0000000{number}",
            "vpcId": "vpc-0a1b2c3d",
            "status": "in-use",
            "association": {"publicIp": "203.0.113.1"},
            "attachment": {
                "instanceId": f"i-0000000{number}",
                "deviceIndex": number,
                "status": "attached",
            },
            "privateIpAddress": f"10.1.0.{number}",
            "privateIpAddressesSet": [
                {
                    "privateIpAddress": f"10.1.1.{number}",
                    "association": {"publicIp": "203.0.113.1"},
                }
            ],
            "ipv6AddressesSet": [{"ipv6Address": f"2001:db8::{number}", "isPrimaryIpv6": "true"}],
            "ipv4PrefixSet": [{"ipv4Prefix": f"10.1.{16 * number}.0/28"}],
            "ipv6PrefixSet": [{"ipv6Prefix": f"2001:db8:0:0:{number}::/80"}],
            "groupSet": [{"groupId": "sg-0000000a", "groupName": "web"}],
            "tagSet": TAGS,
        }
        for number in (1, 2)
    ],
    "DescribeInstances": [
        {
            "reservationId": "r-00000001",
            "instancesSet": [
                {
                    "instanceId": "i-00000002",
                    "instanceState": {"code": 48, "name": "terminated"},
                    "instanceType": "m5.large",
                }
            ],
        }
    ],
    "GetManagedPrefixListEntries/pl-0000000a": [{"cidr": "198.51.100.0/24", "description": "x"}],
}


pytestmark = pytest.mark.usefixtures("aws_settings")


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ec2Server]:
    with ec2_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for action, items in WORLD.items():
            server.say("us-west-2", action, items)
        yield server


def read(regions: Collection[str] = ("us-west-2",)) -> tuple[Content, list[Inventory]]:
    """What regions say, and the replies as they were parsed."""
    parsed: list[Inventory] = []

    def understand(inventory: Inventory) -> View:
        parsed.append(inventory)
        return view(inventory, "tag:role", ())

    sources = [SourceConfig(region=region) for region in regions]
    with Ec2Reader(sources, understand, lambda *_: None)() as views:
        return merge(views(), "tag:role", ()), parsed


def read_whole(
    monkeypatch: pytest.MonkeyPatch, regions: Collection[str] = ("us-west-2",)
) -> tuple[Content, list[Inventory]]:
    """The same by botocore's own model."""
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "cut_model", lambda _: None)
        return read(regions)


def fields_of(reply: Any, value: Any) -> set[str]:
    """All that was parsed of an item, as paths of fields that its type has; others are marked."""
    found: set[str] = set()
    for item in value if isinstance(value, Sequence) else [value]:
        hints = get_type_hints(reply)
        for name, inner in item.items():
            hint = hints.get(name, Any)
            kind = (*get_args(hint), hint)[0]
            found.add(name if name in hints else f"{name} is not read")
            if is_typeddict(kind):
                found |= {f"{name}.{path}" for path in fields_of(kind, inner)}
    return found


def paths_of(reply: Any) -> set[str]:
    """All that the type of an item has, as paths of fields."""
    found: set[str] = set()
    for name, hint in get_type_hints(reply).items():
        kind = (*get_args(hint), hint)[0]
        found.add(name)
        if is_typeddict(kind):
            found |= {f"{name}.{path}" for path in paths_of(kind)}
    return found


@pytest.mark.usefixtures("ec2")
def test_every_field_that_is_read_arrives_and_no_other() -> None:
    _, parsed = read()

    for member, reply in MEMBERS.items():
        items = [item for inventory in parsed for item in getattr(inventory, member)]
        assert fields_of(reply, items) == paths_of(reply)
    (instance,) = (item for inventory in parsed for item in inventory.instances)
    assert instance == {"InstanceId": "i-00000002", "State": {"Name": "terminated"}}
    lists = [lists for inventory in parsed if (lists := inventory.prefix_lists)]
    assert lists == [{"pl-0000000a": [{"Cidr": "198.51.100.0/24"}]}]


@pytest.mark.usefixtures("ec2")
def test_a_reply_means_the_same_with_botocore_s_own_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content, parsed = read()
    whole_content, whole_parsed = read_whole(monkeypatch)

    assert content == whole_content
    assert len(str(whole_parsed)) > len(str(parsed))
    (region,) = content.regions
    assert len(region.interfaces) == 1
    assert len(region.interfaces[0].addresses) == 5
    assert region.groups[0].tag == "front"
    assert region.prefix_lists[0].cidrs == ("198.51.100.0/24",)


def test_a_generated_world_means_the_same_with_botocore_s_own_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_world(Size(60, 40))
    with aws_server() as server:
        server.regions = {region.name: render_region(region) for region in world.regions}
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)

        assert read(SHARES)[0] == read_whole(monkeypatch, SHARES)[0]


def loaded(session: botocore.session.Session) -> dict[str, Any]:
    model: dict[str, Any] = session.get_component("data_loader").load_service_model(
        "ec2", "service-2"
    )
    return model


def test_no_shape_that_is_left_needs_one_that_is_not() -> None:
    model = cut(loaded(botocore.session.Session()))

    shapes = model["shapes"]
    for shape in shapes.values():
        parts = [shape[part] for part in ("member", "key", "value") if part in shape]
        for part in (*parts, *shape.get("members", {}).values()):
            assert part["shape"] in shapes
    assert set(model["operations"]) == set(CALLS)


@pytest.mark.parametrize(
    "place",
    [
        ("operations", "DescribeVpcs"),
        ("shapes", "DescribeVpcsResult", "members", "Vpcs"),
        ("shapes", "NetworkInterface", "members", "Ipv6Prefixes"),
        ("shapes", "IpRange", "members", "CidrIp"),
    ],
    ids=lambda place: place[-1],
)
def test_a_model_that_lacks_what_is_read_stays_as_it_is(
    place: tuple[str, ...], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("reyes"), "propagate", True)
    session = botocore.session.Session()
    model = holder = loaded(session)
    *way, last = place
    for step in way:
        holder = holder[step]
    del holder[last]
    before = {kind: dict(model[kind]) for kind in ("operations", "shapes")}

    cut_model(session)

    assert {kind: model[kind] for kind in before} == before
    assert f"botocore's model of EC2 has no '{last}'" in caplog.text
