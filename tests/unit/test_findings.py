"""Each doubt about a ruleset, once where it is due and not where it is not."""

from ipaddress import ip_network

import pytest
from msgspec.structs import replace

from reyes.config import parse_config
from reyes.errors import SignatureError
from reyes.findings import Finding, find, find_for
from reyes.net import Everything, Network
from reyes.ruleset import Content, GroupReference, PrefixList, Region
from tests.configurations import MINIMAL
from tests.worlds import allow, group, icmp, interface, tcp, vpc, world

FILTERED: tuple[Network, ...] = (ip_network("10.0.0.0/8"),)


def west(*rules: object, name: str = "web", carried: bool = True) -> Region:
    return Region(
        name="us-west-2",
        vpcs=(vpc("vpc-0000000a", "10.1.0.0/16"),),
        groups=(group("sg-00000001", name, *rules, vpc="vpc-0000000a"),),  # type: ignore[arg-type]  # rules, from a table
        interfaces=(
            interface("00000001", "10.1.0.10", "sg-00000001", "i-00000001", vpc="vpc-0000000a"),
        )
        if carried
        else (),
    )


def east(cidr: str = "10.2.0.0/16", name: str = "app") -> Region:
    return Region(
        name="eu-west-1",
        vpcs=(vpc("vpc-0000000b", cidr),),
        groups=(group("sg-00000009", name, vpc="vpc-0000000b"),),
    )


def kinds(content: Content, filtered: tuple[Network, ...] | None = FILTERED) -> list[str]:
    return [f"{one.severity}: {one.kind}" for one in find(content, filtered)]


def test_an_ordinary_world_has_no_findings() -> None:
    content = world(
        east(),
        west(
            allow(tcp(443), "10.2.0.0/24", "0.0.0.0/0"),
            allow(tcp(22), "10.1.7.0/24", "sg-00000001"),
        ),
    )
    assert kinds(content) == []


@pytest.mark.parametrize(
    ("rule", "finding"),
    [
        (allow(Everything(), "10.0.0.0/8"), "critical: open to whole networks"),
        (allow(Everything(), "0.0.0.0/0"), "critical: open to whole networks"),
        (allow(tcp(0, 65535), "10.2.0.0/16"), "critical: open to whole networks"),
        (allow(tcp(1, 65535), "10.2.0.0/16"), "critical: open to whole networks"),
        (allow(tcp(22), "sg-0000dead"), "warning: reference to nobody"),
        (
            allow(tcp(22), GroupReference(id="sg-00000001", peering="expired")),
            "warning: reference to nobody",
        ),
        (allow(tcp(22), "pl-0000dead"), "warning: unreadable prefix list"),
        (allow(icmp(-1, 3), "10.2.0.0/24"), "warning: rule that matches nothing"),
        (allow(tcp(22), "10.1.7.0/24"), "note: rule that never matters"),
        (allow(tcp(22), "192.0.2.0/24"), "note: rule that never matters"),
    ],
)
def test_a_doubtful_rule_is_found(rule: object, finding: str) -> None:
    assert kinds(world(east(), west(rule))) == [finding]


@pytest.mark.parametrize(
    ("networks", "found"),
    [
        (("10.2.0.0/17", "10.2.128.0/17"), "10.2.0.0/16 lets in all of 10.2.0.0/16; "),
        (("10.2.0.0/18", "pl-00000001"), "10.2.0.0/16 lets in all of 10.2.0.0/16; "),
        (("10.50.0.0/16",), "65536 addresses of IPv4 together; "),
        (("10.50.0.0/17", "10.60.0.0/17"), "65536 addresses of IPv4 together; "),
    ],
)
def test_networks_of_one_rule_count_together(networks: tuple[str, ...], found: str) -> None:
    region = replace(
        west(allow(Everything(), *networks)),
        prefix_lists=(PrefixList(id="pl-00000001", cidrs=("10.2.128.0/17", "10.2.64.0/18")),),
    )
    (finding,) = find(world(east(), region), FILTERED)
    assert (finding.severity, finding.kind) == ("critical", "open to whole networks")
    assert finding.message.startswith(f"all: {found}")


@pytest.mark.parametrize(
    "rule",
    [
        allow(Everything(), "10.2.0.0/17", "10.60.0.0/18"),
        allow(Everything(), "10.2.0.0/17", "10.2.0.0/17", "10.2.0.0/18"),
        allow(Everything(), "10.2.0.0/17", "10.1.0.0/16", "192.0.0.0/8"),
        allow(tcp(0, 65534), "10.2.0.0/17", "10.2.128.0/17", "10.50.0.0/16"),
    ],
)
def test_only_what_is_judged_counts_and_once_and_for_all_ports(rule: object) -> None:
    assert kinds(world(east(), west(rule))) == []


@pytest.mark.parametrize(
    ("prefix", "found"), [(56, ["critical: open to whole networks"]), (57, [])]
)
def test_a_whole_network_of_ipv6_is_a_56(prefix: int, found: list[str]) -> None:
    region = west(allow(Everything(), f"2001:db8::/{prefix}"))
    assert kinds(world(east(), region), None) == found


def test_a_group_of_another_vpc_is_judged_where_its_members_are() -> None:
    def found(cidr: str, *members: str) -> list[str]:
        carriers = tuple(
            interface(f"0000000{number}", "10.7.0.9", "sg-00000001", vpc=where)
            for number, where in enumerate(members)
        )
        region = west(allow(Everything(), cidr))
        both = (*region.vpcs, vpc("vpc-0000000b", "10.2.0.0/16"))
        return kinds(world(replace(region, vpcs=both, interfaces=carriers)))

    critical, never = "critical: open to whole networks", "note: rule that never matters"
    assert found("10.1.0.0/16", "vpc-0000000b") == [critical]
    assert found("10.2.0.0/16", "vpc-0000000b") == [never]
    assert found("10.1.0.0/16", "vpc-0000000a") == [never]
    assert found("10.1.0.0/16", "vpc-0000000a", "vpc-0000000b") == [critical]


def test_all_of_the_own_vpc_may_be_let_in() -> None:
    assert kinds(world(east(), west(allow(Everything(), "10.1.0.0/16")))) == [
        "note: rule that never matters"
    ]


def test_a_group_that_is_carried_and_was_not_read_is_found_once() -> None:
    region = west()
    carriers = tuple(
        replace(region.interfaces[0], id=identifier, groups=("sg-00000001", "sg-0000dead"))
        for identifier in ("eni-00000001", "eni-00000002", "eni-00000003")
    )

    (finding,) = find(world(replace(region, interfaces=carriers)), FILTERED)

    assert (finding.severity, finding.kind) == ("warning", "group that was not read")
    assert finding.where == "sg-0000dead in us-west-2"
    assert finding.message.startswith("eni-00000001 of vpc-0000000a and 2 more carry it, ")


def test_a_group_that_nobody_carries_is_noted() -> None:
    content = world(west(allow(tcp(22), "sg-00000001"), carried=False))
    assert kinds(content) == ["note: group without members"]


def test_an_excluded_group_is_not_looked_at() -> None:
    content = world(west(allow(Everything(), "10.0.0.0/8")), excluded_group_names=("web",))
    assert kinds(content) == []


def test_an_excluded_name_that_no_group_has_is_found() -> None:
    content = world(west(), excluded_group_names=("vpn-alow-all", "web"))
    (finding,) = find(content, FILTERED)
    assert (finding.severity, finding.kind) == ("warning", "excluded group that is nowhere")
    assert finding.where == "'vpn-alow-all'"


def test_groups_that_count_as_one_are_noted_once() -> None:
    content = world(east(name="web"), west(name="web"))
    assert kinds(content) == ["note: groups that count as one"]
    assert kinds(world(east(name="default"), west(name="default"))) == []
    assert kinds(world(east(name="web"), west(name="web"), group_matching="id")) == []


def test_vpcs_that_overlap_or_are_not_judged_are_found() -> None:
    overlapping = world(east("10.1.128.0/17"), west())
    assert kinds(overlapping) == ["warning: overlapping VPCs"]
    outside = world(east("172.20.0.0/16"), west())
    assert kinds(outside) == ["warning: VPC outside filtered_cidrs"]
    assert kinds(outside, None) == []


@pytest.mark.parametrize(
    "region",
    [
        west(allow(tcp(22), "10.2.0.0/33")),
        west(allow(Everything(), "10.2.0.7/24")),
        replace(
            west(allow(tcp(22), "pl-1")), prefix_lists=(PrefixList(id="pl-1", cidrs=("web",)),)
        ),
        replace(west(), vpcs=(vpc("vpc-0000000c", "10.2"),)),
    ],
)
@pytest.mark.parametrize("filtered", [FILTERED, None])
def test_what_is_no_network_refuses_the_ruleset(
    region: Region, filtered: tuple[Network, ...] | None
) -> None:
    with pytest.raises(SignatureError, match="bad address"):
        find(world(east(), region), filtered)


@pytest.mark.parametrize(
    ("section", "found"),
    [
        ("", ["critical: open to whole networks"]),
        (
            "follower: {}\n",
            ["warning: VPC outside filtered_cidrs", "note: rule that never matters"],
        ),
        (
            "follower: {filtered_cidrs: [192.168.0.0/16, 172.16.0.0/12]}\n",
            ["critical: open to whole networks", "warning: VPC outside filtered_cidrs"],
        ),
    ],
)
def test_a_file_without_followers_says_nothing_of_what_they_judge(
    section: str, found: list[str]
) -> None:
    config = parse_config(MINIMAL + section, "c")
    content = world(
        replace(west(allow(Everything(), "172.20.0.0/16")), vpcs=()),
        east("192.0.2.0/24"),
    )
    assert [f"{one.severity}: {one.kind}" for one in find_for(config, content)] == found


def test_findings_come_worst_first() -> None:
    content = world(east(), west(allow(tcp(22), "10.1.7.0/24"), allow(Everything(), "10.0.0.0/8")))
    found: tuple[Finding, ...] = find(content, FILTERED)
    assert [one.severity for one in found] == ["critical", "note"]
    assert "rule 2" in found[0].where
