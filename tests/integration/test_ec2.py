"""EC2 over HTTP: moto for the ordinary case, a server of our own for what moto cannot say."""

import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.session import Session

from reyes.adapters import ec2 as adapter
from reyes.adapters.ec2 import Ec2Reader
from reyes.config import SourceConfig
from reyes.errors import ConfigError, SourceError
from reyes.inventory import Inventory, View, merge, view
from reyes.net import Everything, Icmp, Ports
from reyes.ruleset import Content, GroupReference, Ingress, Region
from tests.fakes.ec2_server import Ec2Server, Failure, Item, ec2_server

OWNER = "123456789012"
ROLE = "arn:aws:iam::210987654321:role/reyes-leader"
VPC: Item = {
    "vpcId": "vpc-0a1b2c3d",
    "ownerId": OWNER,
    "cidrBlockAssociationSet": [
        {"cidrBlock": "10.1.0.0/16", "cidrBlockState": {"state": "associated"}}
    ],
}
CALLS = (
    "DescribeVpcs",
    "DescribeSecurityGroups",
    "DescribeNetworkInterfaces",
    "DescribeInstances",
)


def group(identifier: str = "sg-0000000a", *permissions: Item) -> Item:
    return {
        "groupId": identifier,
        "groupName": f"name of {identifier}",
        "ownerId": OWNER,
        "vpcId": "vpc-0a1b2c3d",
        "ipPermissions": list(permissions),
    }


def interface(number: int, **fields: Any) -> Item:
    return {
        "networkInterfaceId": f"eni-{number:08x}",
        "vpcId": "vpc-0a1b2c3d",
        "privateIpAddress": f"10.1.0.{number}",
        "privateIpAddressesSet": [{"privateIpAddress": f"10.1.0.{number}", "primary": "true"}],
        "groupSet": [{"groupId": "sg-0000000a"}],
        "attachment": {"instanceId": f"i-{number:08x}", "deviceIndex": 0, "status": "attached"},
        **fields,
    }


def instance(number: int, state: str = "running") -> Item:
    return {"instanceId": f"i-{number:08x}", "instanceState": {"code": 16, "name": state}}


pytestmark = pytest.mark.usefixtures("aws_settings")


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ec2Server]:
    with ec2_server() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        server.say("us-west-2", "DescribeVpcs", [VPC])
        yield server


class Progress:
    """Counts what it is told, by source and call."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.told: dict[tuple[str, str], list[int]] = {}

    def __call__(self, source: str, call: str, items: int) -> None:
        with self.lock:
            self.told.setdefault((source, call), []).append(items)


def read(
    *sources: SourceConfig, excluded: tuple[str, ...] = (), progress: Progress | None = None
) -> Content:
    matching: Any = {"matching": "name", "excluded_group_names": excluded}
    reader = Ec2Reader(
        sources or (SourceConfig(region="us-west-2"),),
        partial(view, **matching),
        progress or Progress(),
    )
    with reader() as views:
        return merge(views(), **matching)


def test_what_has_not_answered_is_named_when_time_is_over(
    ec2: Ec2Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("reyes"), "propagate", True)
    ec2.silent = "us-west-2"
    understand = partial(view, matching="name", excluded_group_names=())
    reader = Ec2Reader((SourceConfig(region="us-west-2"),), understand, Progress())

    def interrupted() -> None:
        with reader():
            while len(ec2.asked) < 2:
                time.sleep(0.01)
            raise KeyboardInterrupt  # a deadline's is no Exception either

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    ec2.silent = None
    assert caplog.messages == [
        "EC2 has not answered: us-west-2: DescribeNetworkInterfaces, us-west-2: DescribeVpcs"
    ]


def test_a_call_that_fails_says_nothing_of_others(
    ec2: Ec2Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("reyes"), "propagate", True)
    ec2.silent = "us-west-2"
    ec2.say("eu-west-1", "DescribeVpcs", Failure("UnauthorizedOperation", 403))

    with pytest.raises(SourceError, match="eu-west-1"):
        read(SourceConfig(region="us-west-2"), SourceConfig(region="eu-west-1"))

    ec2.silent = None
    assert caplog.messages == []


def test_the_largest_pages_are_asked_for_and_only_ended_instances(ec2: Ec2Server) -> None:
    naming = {"ipProtocol": "-1", "prefixListIds": [{"prefixListId": "pl-0000000a"}]}
    ec2.say("us-west-2", "DescribeSecurityGroups", [group("sg-0000000a", naming)])

    read()

    assert {asked.action: asked.parameters["MaxResults"] for asked in ec2.asked} == {
        **dict.fromkeys(CALLS, "1000"),
        "GetManagedPrefixListEntries": "100",
    }
    assert len(ec2.asked) == 5
    filtered = [asked for asked in ec2.asked if "Filter.1.Name" in asked.parameters]
    assert [asked.action for asked in filtered] == ["DescribeInstances"]
    assert filtered[0].parameters["Filter.1.Name"] == "instance-state-name"
    assert filtered[0].parameters["Filter.1.Value.1"] == "terminated"
    assert all("reyes/" in asked.user_agent for asked in ec2.asked)


def test_what_aws_manages_is_asked_for_even_if_the_account_hides_it(ec2: Ec2Server) -> None:
    read()

    hidden = {asked.action: asked.parameters.get("IncludeManagedResources") for asked in ec2.asked}
    assert hidden == {
        **dict.fromkeys(CALLS),
        "DescribeInstances": "true",
        "DescribeNetworkInterfaces": "true",
    }


def test_an_older_botocore_is_not_asked_for_what_it_does_not_know(
    ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(session: Session) -> None:
        model = session.get_component("data_loader").load_service_model("ec2", "service-2")
        for call in CALLS:
            shape = model["shapes"][model["operations"][call]["input"]["shape"]]
            shape["members"].pop("IncludeManagedResources", None)

    monkeypatch.setattr("reyes.adapters.ec2.cut_model", older)
    ec2.say("us-west-2", "DescribeNetworkInterfaces", [interface(1)])

    assert len(read().regions[0].interfaces) == 1


def test_instances_are_asked_for_after_the_last_page_of_interfaces(ec2: Ec2Server) -> None:
    ec2.say("us-west-2", "DescribeNetworkInterfaces", [interface(1)], [], [interface(2)])

    read()

    members = ("DescribeNetworkInterfaces", "DescribeInstances")
    asked = [asked.action for asked in ec2.asked if asked.action in members]
    assert asked == ["DescribeNetworkInterfaces"] * 3 + ["DescribeInstances"]


def test_pages_are_followed_by_their_token_even_through_empty_ones(ec2: Ec2Server) -> None:
    ec2.say("us-west-2", "DescribeSecurityGroups", [], [group()], [], [group("sg-0000000b")])
    ec2.say("us-west-2", "DescribeNetworkInterfaces", [interface(1)], [], [interface(2)])
    progress = Progress()

    (region,) = read(progress=progress).regions

    assert [found.id for found in region.groups] == ["sg-0000000a", "sg-0000000b"]
    assert [found.id for found in region.interfaces] == ["eni-00000001", "eni-00000002"]
    assert progress.told["us-west-2", "DescribeSecurityGroups"] == [0, 1, 1, 2]


def test_every_instance_of_a_reservation_counts(ec2: Ec2Server) -> None:
    large = {"instancesSet": [instance(1), instance(2, "terminated"), instance(3, "stopped")]}
    small = {"instancesSet": [instance(4, "terminated")]}
    ec2.say("us-west-2", "DescribeInstances", [large, {}, small])
    ec2.say("us-west-2", "DescribeNetworkInterfaces", [interface(n) for n in (1, 2, 3, 4)])

    (region,) = read().regions

    assert [found.instance for found in region.interfaces] == ["i-00000001", "i-00000003"]


def test_secondary_addresses_and_delegated_prefixes_arrive(ec2: Ec2Server) -> None:
    ec2.say(
        "us-west-2",
        "DescribeNetworkInterfaces",
        [
            interface(
                1,
                association={"publicIp": "203.0.113.1"},
                privateIpAddressesSet=[
                    {
                        "privateIpAddress": "10.1.0.1",
                        "primary": "true",
                        "association": {"publicIp": "203.0.113.1"},
                    },
                    {"privateIpAddress": "10.1.0.77", "primary": "false"},
                ],
                ipv6AddressesSet=[{"ipv6Address": "2001:db8::1"}],
                ipv4PrefixSet=[{"ipv4Prefix": "10.1.16.0/28"}],
                ipv6PrefixSet=[{"ipv6Prefix": "2001:db8:0:0:1::/80"}],
            )
        ],
    )

    (region,) = read().regions

    assert region.interfaces[0].addresses == (
        "10.1.0.1",
        "10.1.0.77",
        "10.1.16.0/28",
        "2001:db8:0:0:1::/80",
        "2001:db8::1",
    )


def test_rules_that_moto_does_not_know_arrive(ec2: Ec2Server) -> None:
    peered = {
        "userId": "210987654321",
        "groupId": "sg-0000000b",
        "vpcId": "vpc-0b0b0b0b",
        "vpcPeeringConnectionId": "pcx-0a0a0a0a",
    }
    ec2.say(
        "us-west-2",
        "DescribeSecurityGroups",
        [
            group(
                "sg-0000000a",
                {"ipProtocol": "icmpv6", "ipv6Ranges": [{"cidrIpv6": "2001:db8::/32"}]},
                {
                    "ipProtocol": "58",
                    "fromPort": 128,
                    "toPort": 0,
                    "ipv6Ranges": [{"cidrIpv6": "::/0"}],
                },
                {
                    "ipProtocol": "tcp",
                    "fromPort": 22,
                    "toPort": 22,
                    "groups": [
                        {**peered, "peeringStatus": "active"},
                        {**peered, "groupId": "sg-0000000c", "peeringStatus": "deleted"},
                        {"groupId": "sg-0000000d"},
                    ],
                },
            )
        ],
    )

    ((found,),) = (region.groups for region in read().regions)

    assert found.ingress == (
        Ingress(
            service=Icmp(protocol="icmpv6", type=-1, code=-1),
            cidrs=("2001:db8::/32",),
        ),
        Ingress(service=Icmp(protocol="icmpv6", type=128, code=0), cidrs=("::/0",)),
        Ingress(
            service=Ports(protocol="tcp", first=22, last=22),
            groups=(
                GroupReference(id="sg-0000000b", account="210987654321"),
                GroupReference(id="sg-0000000c", account="210987654321", peering="deleted"),
                GroupReference(id="sg-0000000d"),
            ),
        ),
    )


def test_prefix_lists_are_read_page_by_page_and_unreadable_ones_left_out(
    ec2: Ec2Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("reyes"), "propagate", True)

    def naming(protocol: str, identifier: str) -> Item:
        return {"ipProtocol": protocol, "prefixListIds": [{"prefixListId": identifier}]}

    ec2.say(
        "us-west-2",
        "DescribeSecurityGroups",
        [
            group("sg-0000000a", naming("6", "pl-0000000a"), naming("17", "pl-0000000b")),
            group("sg-0000000c", naming("6", "pl-0000000d")),
            {
                **group("sg-0000000b", naming("-1", "pl-0000000c")),
                "groupName": "vpn-allow-all",
            },
        ],
    )
    entries = "GetManagedPrefixListEntries"
    ec2.say(
        "us-west-2",
        f"{entries}/pl-0000000a",
        [{"cidr": "192.0.2.0/24"}],
        [],
        [{"cidr": "198.51.100.0/24"}],
    )
    ec2.say("us-west-2", f"{entries}/pl-0000000b", Failure("InvalidPrefixListID.NotFound"))
    ec2.say("us-west-2", f"{entries}/pl-0000000d", Failure("InvalidPrefixListId.NotFound"))

    (region,) = read(excluded=("vpn-allow-all",)).regions

    assert [(found.id, found.cidrs) for found in region.prefix_lists] == [
        ("pl-0000000a", ("192.0.2.0/24", "198.51.100.0/24"))
    ]
    assert {asked.parameters["PrefixListId"] for asked in ec2.asked_for(entries)} == {
        "pl-0000000a",
        "pl-0000000b",
        "pl-0000000d",
    }
    for identifier in ("pl-0000000b", "pl-0000000d"):
        assert f"us-west-2: prefix list {identifier} is gone or not shared" in caplog.text


def test_a_prefix_list_that_may_not_be_read_fails_the_read(ec2: Ec2Server) -> None:
    naming = {"ipProtocol": "-1", "prefixListIds": [{"prefixListId": "pl-0000000a"}]}
    ec2.say("us-west-2", "DescribeSecurityGroups", [group("sg-0000000a", naming)])
    action = "GetManagedPrefixListEntries"
    ec2.say("us-west-2", f"{action}/pl-0000000a", Failure("UnauthorizedOperation", 403))

    with pytest.raises(SourceError, match=action) as caught:
        read()

    assert caught.value.hint == f"allow the leader the action ec2:{action}"


def test_only_the_named_vpcs_are_asked_for(ec2: Ec2Server) -> None:
    read(SourceConfig(region="us-west-2", vpcs=("vpc-0a1b2c3d",)))

    assert sorted(asked.action for asked in ec2.asked) == sorted(CALLS)
    # Instances that have ended have no VPC any more.
    *others, ended = sorted(ec2.asked, key=lambda asked: asked.action == "DescribeInstances")
    assert ended.parameters["Filter.1.Name"] == "instance-state-name"
    for asked in others:
        assert asked.parameters["Filter.1.Name"] == "vpc-id"
        assert asked.parameters["Filter.1.Value.1"] == "vpc-0a1b2c3d"


def test_groups_of_other_vpcs_that_interfaces_carry_are_read(ec2: Ec2Server) -> None:
    naming = {"ipProtocol": "-1", "prefixListIds": [{"prefixListId": "pl-0000000a"}]}
    ec2.say("us-west-2", "DescribeSecurityGroups", [group()])
    ec2.say("us-west-2", "DescribeSecurityGroups/group-id", [group("sg-0000000c", naming)])
    carried = [{"groupId": "sg-0000000a"}, {"groupId": "sg-0000000c"}]
    ec2.say("us-west-2", "DescribeNetworkInterfaces", [interface(1, groupSet=carried)])
    entry = {"cidr": "10.9.0.0/16"}
    ec2.say("us-west-2", "GetManagedPrefixListEntries/pl-0000000a", [entry])

    (region,) = read(SourceConfig(region="us-west-2", vpcs=("vpc-0a1b2c3d",))).regions

    _, asked = ec2.asked_for("DescribeSecurityGroups")
    assert asked.parameters["Filter.1.Name"] == "group-id"
    assert asked.parameters["Filter.1.Value.1"] == "sg-0000000c"
    assert "Filter.1.Value.2" not in asked.parameters
    assert [group.id for group in region.groups] == ["sg-0000000a", "sg-0000000c"]
    assert [(entry.id, entry.cidrs) for entry in region.prefix_lists] == [
        ("pl-0000000a", ("10.9.0.0/16",))
    ]


def test_groups_made_while_interfaces_are_read_are_read_as_well(ec2: Ec2Server) -> None:
    ec2.say("us-west-2", "DescribeSecurityGroups", [group()])
    ec2.say("us-west-2", "DescribeSecurityGroups/group-id", [group("sg-0000000b")])
    carried = [{"groupId": "sg-0000000b"}]
    ec2.say("us-west-2", "DescribeNetworkInterfaces", [interface(1, groupSet=carried)])

    (region,) = read().regions

    assert [group.id for group in region.groups] == ["sg-0000000a", "sg-0000000b"]


def test_many_groups_of_other_vpcs_are_asked_for_in_parts(ec2: Ec2Server) -> None:
    carried = [f"sg-{number:08x}" for number in range(201)]
    items = [{"groupId": identifier} for identifier in carried]
    ec2.say("us-west-2", "DescribeNetworkInterfaces", [interface(1, groupSet=items)])

    read(SourceConfig(region="us-west-2", vpcs=("vpc-0a1b2c3d",)))

    _, *parts = ec2.asked_for("DescribeSecurityGroups")
    values = [
        [value for name, value in part.parameters.items() if ".Value." in name] for part in parts
    ]
    assert values == [carried[:200], carried[200:]]


def test_a_named_vpc_that_is_not_there_is_an_error(ec2: Ec2Server) -> None:
    source = SourceConfig(region="us-west-2", vpcs=("vpc-0a1b2c3d", "vpc-0f0f0f0f"))

    with pytest.raises(ConfigError, match=r"^us-west-2 has no VPC vpc-0f0f0f0f$"):
        read(source)

    assert ec2.asked_for("DescribeSecurityGroups") == []


@pytest.mark.parametrize("tries", [2, 10])
def test_clients_give_up_in_time(
    ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    make = boto3.Session.client
    made: list[Any] = []

    def noted(session: boto3.Session, service: Any, **settings: Any) -> Any:
        made.append(make(session, service, **settings))
        return made[-1]

    monkeypatch.setattr(boto3.Session, "client", noted)
    if tries == 10:
        monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    read(SourceConfig(region="us-west-2", role_arn=ROLE))

    assert len(ec2.asked) == 5
    assert len(made) == 2
    for settings in (client.meta.config for client in made):
        assert (settings.connect_timeout, settings.read_timeout) == (10, 60)
        assert settings.retries == {"mode": "adaptive", "total_max_attempts": tries}


def test_a_role_is_assumed_in_the_source_s_own_region(ec2: Ec2Server) -> None:
    read(
        SourceConfig(region="us-west-2"),
        SourceConfig(region="us-west-2", role_arn=ROLE),
        SourceConfig(region="eu-west-1", role_arn=ROLE),
    )

    assert sorted((asked.region, asked.account) for asked in ec2.asked_for("AssumeRole")) == [
        ("eu-west-1", "OWN"),
        ("us-west-2", "OWN"),
    ]
    vpcs = ec2.asked_for("DescribeVpcs")
    assert sorted((asked.region, asked.account, asked.token) for asked in vpcs) == [
        ("eu-west-1", "210987654321", "token"),
        ("us-west-2", "210987654321", "token"),
        ("us-west-2", "OWN", ""),
    ]


def test_a_role_that_may_not_be_assumed_is_named(ec2: Ec2Server) -> None:
    ec2.fail("eu-west-1", "AssumeRole", Failure("AccessDenied", 403))

    with pytest.raises(SourceError, match=f"^eu-west-1 as {ROLE}: AssumeRole failed") as caught:
        read(SourceConfig(region="eu-west-1", role_arn=ROLE))

    assert caught.value.hint == f"allow the leader to assume {ROLE}, on both sides"


def test_the_same_world_seen_by_two_accounts_counts_once(ec2: Ec2Server) -> None:
    ec2.say("us-west-2", "DescribeSecurityGroups", [group()])
    ec2.say("us-west-2", "DescribeNetworkInterfaces", [interface(1)])

    once = read()
    twice = read(SourceConfig(region="us-west-2"), SourceConfig(region="us-west-2", role_arn=ROLE))

    assert once == twice


def test_throttling_that_ends_is_waited_for(ec2: Ec2Server) -> None:
    ec2.say("us-west-2", "DescribeSecurityGroups", [group()])
    ec2.fail("us-west-2", "DescribeSecurityGroups", Failure("RequestLimitExceeded", 503))

    (region,) = read().regions

    assert len(region.groups) == 1
    assert len(ec2.asked_for("DescribeSecurityGroups")) == 2


@pytest.mark.parametrize(
    ("failure", "hint"),
    [
        (Failure("RequestLimitExceeded", 503), "EC2 throttles the account"),
        (Failure("UnauthorizedOperation", 403), "the action ec2:DescribeInstances"),
        (Failure("AuthFailure", 401), "is us-west-2 enabled in the account"),
        (Failure("InternalError", 500), "the next run tries again"),
    ],
    ids=lambda value: value.code if isinstance(value, Failure) else "",
)
def test_a_call_that_finally_fails_is_named_with_what_to_do(
    ec2: Ec2Server, failure: Failure, hint: str
) -> None:
    ec2.say("us-west-2", "DescribeInstances", failure)

    with pytest.raises(SourceError) as caught:
        read()

    assert caught.value.message == (
        f"us-west-2: DescribeInstances failed: {failure.code}: simulated {failure.code}"
    )
    assert caught.value.hint
    assert hint in caught.value.hint


def test_a_region_that_fails_on_its_second_page_fails_the_read(ec2: Ec2Server) -> None:
    ec2.say("eu-west-1", "DescribeSecurityGroups", [group()], Failure("InternalError", 500))
    ec2.say("us-west-2", "DescribeSecurityGroups", [group()], [group("sg-0000000b")])

    with pytest.raises(SourceError, match=r"^eu-west-1: DescribeSecurityGroups failed"):
        read(SourceConfig(region="us-west-2"), SourceConfig(region="eu-west-1"))


def test_after_a_failure_the_other_sources_stop_at_their_next_page(ec2: Ec2Server) -> None:
    pages = [[interface(1)]] * 10_000
    ec2.say("us-west-2", "DescribeNetworkInterfaces", *pages)
    ec2.say("eu-west-1", "DescribeVpcs", Failure("UnauthorizedOperation", 403))

    with pytest.raises(SourceError, match="eu-west-1"):
        read(SourceConfig(region="us-west-2"), SourceConfig(region="eu-west-1"))

    assert len(ec2.asked_for("DescribeNetworkInterfaces")) < len(pages)


def test_who_does_not_wait_for_the_replies_stops_the_reading(ec2: Ec2Server) -> None:
    pages = [[interface(1)]] * 10_000
    ec2.say("us-west-2", "DescribeNetworkInterfaces", *pages)
    first = threading.Event()
    readers: set[threading.Thread] = set()

    def understand(inventory: Inventory) -> View:
        readers.add(threading.current_thread())
        if inventory.interfaces:
            first.set()
        return view(inventory, "name", ())

    with Ec2Reader([SourceConfig(region="us-west-2")], understand, Progress())():
        assert first.wait(30)
    for reader in readers:
        reader.join(30)
        assert not reader.is_alive()

    assert len(ec2.asked_for("DescribeNetworkInterfaces")) < len(pages)


def test_a_reply_that_is_no_xml_is_a_failed_call(
    ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec2, "reply", lambda _: (200, "<html>please log in"))

    with pytest.raises(SourceError, match=r"^us-west-2: Describe\w+ failed"):
        read()


def test_a_reply_that_lacks_what_ec2_always_says_is_named_by_its_source(ec2: Ec2Server) -> None:
    ec2.say("us-west-2", "DescribeVpcs", [{"ownerId": OWNER}])

    with pytest.raises(SourceError, match=r"^us-west-2: a reply of EC2 lacks 'VpcId'$") as caught:
        read()

    assert caught.value.hint == "the next run asks again"


def test_a_reply_of_ec2_without_a_list_has_no_items(
    ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec2, "reply", lambda _: (200, "<R><requestId>0</requestId></R>"))

    assert read().regions == (Region(name="us-west-2"),)


@pytest.mark.parametrize("body", ["<html/>", "<html><body><p>log in</p></body></html>"])
def test_a_reply_of_another_server_is_no_empty_world(
    ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(ec2, "reply", lambda _: (200, body))

    with pytest.raises(SourceError, match=r"^us-west-2: Describe\w+ failed: .*none of EC2's"):
        read()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (301, "<html/>"),
        (400, "<Response><Errors/></Response>"),
        (500, "<Response><Errors><Error/></Errors></Response>"),
    ],
)
@pytest.mark.parametrize("role", [None, ROLE])
def test_a_reply_that_botocore_cannot_take_is_a_failed_call(
    ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch, status: int, body: str, role: str | None
) -> None:
    monkeypatch.setattr(ec2, "reply", lambda _: (status, body))

    call = rf"as {ROLE}: AssumeRole" if role else r"Describe\w+"
    with pytest.raises(SourceError, match=rf"^us-west-2:? {call} failed: (301|\w+Error\()"):
        read(SourceConfig(region="us-west-2", role_arn=role))


def test_a_role_without_credentials_is_a_failed_call(
    ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec2, "reply", lambda _: (200, "<html/>"))

    with pytest.raises(SourceError, match=f"as {ROLE}: AssumeRole failed: KeyError"):
        read(SourceConfig(region="us-west-2", role_arn=ROLE))


def test_an_endpoint_that_nobody_listens_on_is_a_failed_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:1")

    with pytest.raises(SourceError, match=r"^us-west-2: Describe\w+ failed: .*127\.0\.0\.1"):
        read()


def test_settings_that_cannot_be_used_are_no_failed_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", "nowhere")

    with pytest.raises(ConfigError, match=r"AWS settings of this host cannot be used: .*nowhere"):
        read()


def test_without_credentials_the_hint_says_how_to_get_some(
    ec2: Ec2Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(SourceError, match=r"^us-west-2: Describe\w+ failed") as caught:
        read()

    assert caught.value.hint
    assert caught.value.hint.startswith("give the leader an instance role, or name a file in AWS_")
    assert "ProtectHome=yes hides ~/.aws" in caught.value.hint
    assert ec2.asked == []


def test_a_world_made_in_moto_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        ec2 = boto3.client("ec2", region_name="us-west-2")
        vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
        ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock="10.8.0.0/16")
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24")["Subnet"]["SubnetId"]
        web, database = (
            ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
            for name in ("web", "db")
        )
        prefix_list = ec2.create_managed_prefix_list(
            PrefixListName="offices",
            MaxEntries=2,
            AddressFamily="IPv4",
            Entries=[{"Cidr": "192.0.2.0/24"}, {"Cidr": "198.51.100.7/32"}],
        )["PrefixList"]["PrefixListId"]
        ec2.authorize_security_group_ingress(
            GroupId=database,
            IpPermissions=[
                {
                    "IpProtocol": "tcp",
                    "FromPort": 5432,
                    "ToPort": 5433,
                    "UserIdGroupPairs": [{"GroupId": web}],
                    "PrefixListIds": [{"PrefixListId": prefix_list}],
                },
                {
                    "IpProtocol": "icmp",
                    "FromPort": 8,
                    "ToPort": -1,
                    "IpRanges": [{"CidrIp": "10.0.0.0/8"}],
                },
                {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]},
            ],
        )
        instances = ec2.run_instances(
            ImageId="ami-12345678",
            MinCount=3,
            MaxCount=3,
            SubnetId=subnet,
            SecurityGroupIds=[web],
        )["Instances"]
        ec2.terminate_instances(InstanceIds=[instances[2]["InstanceId"]])

        content = read(SourceConfig(region="us-west-2", vpcs=(vpc,)))
        monkeypatch.setattr(adapter, "cut_model", lambda _: None)
        assert read(SourceConfig(region="us-west-2", vpcs=(vpc,))) == content
    finally:
        server.stop()

    (region,) = content.regions
    groups = {found.name: found for found in region.groups}
    assert [found.cidrs for found in region.vpcs] == [("10.1.0.0/16", "10.8.0.0/16")]
    assert sorted(groups) == ["db", "default", "web"]
    assert groups["db"].ingress == (
        Ingress(service=Everything(), cidrs=("2001:db8::/32",)),
        Ingress(service=Icmp(protocol="icmp", type=8, code=-1), cidrs=("10.0.0.0/8",)),
        Ingress(
            service=Ports(protocol="tcp", first=5432, last=5433),
            prefix_lists=(prefix_list,),
            groups=(GroupReference(id=web),),
        ),
    )
    assert [found.cidrs for found in region.prefix_lists] == [("192.0.2.0/24", "198.51.100.7")]
    assert {found.instance: found.addresses for found in region.interfaces} == {
        running["InstanceId"]: (running["PrivateIpAddress"],) for running in instances[:2]
    }
    assert {found.groups for found in region.interfaces} == {(web,)}
