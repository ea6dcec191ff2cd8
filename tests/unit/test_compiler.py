"""Policies in the kernel's words, judged by tables: a feature on the left, its rules on the right.

The tables are written from what EC2 means, not from what comes out. `from web{...}` stands for a
match on a set of that label with those members.
"""

from typing import Any

import pytest
from msgspec.structs import replace as changed

from reyes.config import FailsafeConfig, FollowerConfig
from reyes.host import (
    InterfaceScope,
    IpsecScope,
    configured_host,
)
from reyes.net import Everything, Protocol, Service
from reyes.netfilter.compiler import compile_policy
from reyes.policy import resolve
from reyes.ruleset import Content, Interface
from tests.cases import (
    APP,
    DENIED,
    HOST,
    OWN_INTERFACE,
    V4,
    V6,
    WEB,
    WEB_EU,
    case,
    compiled,
    group_rules,
)
from tests.lines import chain_lines, chain_names, comments
from tests.worlds import (
    allow,
    group,
    icmp,
    icmpv6,
    interface,
    tcp,
    udp,
    verified,
)


def accepts(*matches: str) -> list[str]:
    return [*(f"{match} -g reyes-accept".lstrip() for match in matches), DENIED]


# A service | its words in IPv4 | its words in IPv6, where None is no rule at all
SERVICES: list[tuple[Service, str | None, str | None]] = [
    (tcp(443), "-p tcp -m tcp --dport 443:443", "-p tcp -m tcp --dport 443:443"),
    (tcp(0), "-p tcp -m tcp --dport 0:0", "-p tcp -m tcp --dport 0:0"),
    (tcp(8000, 8100), "-p tcp -m tcp --dport 8000:8100", "-p tcp -m tcp --dport 8000:8100"),
    (tcp(0, 65535), "-p tcp -m tcp --dport 0:65535", "-p tcp -m tcp --dport 0:65535"),
    (udp(53), "-p udp -m udp --dport 53:53", "-p udp -m udp --dport 53:53"),
    (udp(0, 65535), "-p udp -m udp --dport 0:65535", "-p udp -m udp --dport 0:65535"),
    (icmp(8, 0), "-p icmp -m icmp --icmp-type 8/0", None),
    (icmp(3, 4), "-p icmp -m icmp --icmp-type 3/4", None),
    (icmp(0), "-p icmp -m icmp --icmp-type 0", None),
    (icmp(15), "-p icmp -m icmp --icmp-type 15", None),
    (icmp(254, 255), "-p icmp -m icmp --icmp-type 254/255", None),
    (icmp(), "-p icmp", None),
    (icmp(255), None, None),
    (icmp(255, 255), None, None),
    (icmp(-1, 3), None, None),
    (icmpv6(128, 0), None, "-p icmpv6 -m icmp6 --icmpv6-type 128/0"),
    (icmpv6(128), None, "-p icmpv6 -m icmp6 --icmpv6-type 128"),
    (icmpv6(255), None, "-p icmpv6 -m icmp6 --icmpv6-type 255"),
    (icmpv6(), None, "-p icmpv6"),
    (Protocol(number=50), "-p 50", "-p 50"),
    (Protocol(number=47), "-p 47", "-p 47"),
    (Protocol(number=51), "-p 51", None),
    (Protocol(number=255), "-p 255", "-p 255"),
    (Protocol(number=0), None, None),
    (Everything(), "", ""),
    (tcp(90, 80), None, None),
]


@pytest.mark.parametrize(("service", "v4", "v6"), SERVICES, ids=[str(row[0]) for row in SERVICES])
def test_every_service(service: Service, v4: str | None, v6: str | None) -> None:
    dataplane = compiled(case(allow(service, "10.2.0.0/16", "fd00:2::/64")))
    for family, words, source in ((V4, v4, "10.2.0.0/16"), (V6, v6, "fd00:2::/64")):
        expected = accepts() if words is None else accepts(f"{words} -s {source}".lstrip())
        assert group_rules(dataplane, family) == expected


DNS = "-p udp -m udp --dport 53:53"
HTTPS = "-p tcp -m tcp --dport 443:443"
EU_MEMBERS = "from web{10.2.0.10 10.2.16.0/28}"

# Whom a rule is open to | matches in IPv4 | matches in IPv6
PEERS: list[tuple[str, list[str], list[str]]] = [
    ("10.2.0.0/16", ["-s 10.2.0.0/16"], []),
    ("10.2.0.9", ["-s 10.2.0.9"], []),
    ("fd00:2::/64", [], ["-s fd00:2::/64"]),
    ("10.2.0.0/16 10.3.0.0/16", ["from cidrs{10.2.0.0/16 10.3.0.0/16}"], []),
    ("10.3.0.0/16 10.2.0.9", ["from cidrs{10.2.0.9 10.3.0.0/16}"], []),
    ("fd00:2::/64 fd00:3::9", [], ["from cidrs{fd00:2::/64 fd00:3::9}"]),
    ("10.2.0.0/16 fd00:2::/64", ["-s 10.2.0.0/16"], ["-s fd00:2::/64"]),
    # Everywhere is no match, and says nothing about the other family.
    ("0.0.0.0/0", [""], []),
    ("::/0", [], [""]),
    ("0.0.0.0/0 ::/0", [""], [""]),
    ("0.0.0.0/0 10.2.0.0/16", [""], []),
    ("::/0 fd00:2::9 10.2.0.9", ["-s 10.2.0.9"], [""]),
    (
        "pl-0000000a",
        ["from pl-0000{10.20.0.0/16 192.0.2.7}"],
        ["from pl-0000{fd00:20::/64}"],
    ),
    ("pl-0000000b", ["from pl-0000{192.0.2.7}"], []),
    ("pl-0000000c", [], []),
    ("pl-0000000d", [""], []),
    ("pl-0000dead", [], []),
    (WEB, [EU_MEMBERS], ["from web{fd00:2::10}"]),
    (APP, [], []),
    (WEB_EU, [], []),
    ("sg-0000dead", [], []),
    (
        f"10.3.0.0/16 pl-0000000b {WEB}",
        ["-s 10.3.0.0/16", "from pl-0000{192.0.2.7}", EU_MEMBERS],
        ["from web{fd00:2::10}"],
    ),
]


@pytest.mark.parametrize(("open_to", "v4", "v6"), PEERS)
def test_every_kind_of_peer(open_to: str, v4: list[str], v6: list[str]) -> None:
    # A label shows eleven characters.
    dataplane = compiled(case(allow(tcp(443), *open_to.split())))
    for family, expected in ((V4, v4), (V6, v6)):
        assert group_rules(dataplane, family) == accepts(
            *(f"{HTTPS} {match}".rstrip() for match in expected)
        )


def test_members_inside_the_own_vpc_count_where_it_is_judged() -> None:
    content = case(allow(tcp(443), WEB))
    for scope in (IpsecScope(), InterfaceScope(("wg0",))):
        dataplane = compiled(content, scope)
        assert group_rules(dataplane, V4) == accepts(
            f"{HTTPS} from web{{10.1.0.20 10.2.0.10 10.2.16.0/28}}"
        )
        assert group_rules(dataplane, V6) == accepts(f"{HTTPS} from web{{fd00:1::20 fd00:2::10}}")


def test_rules_stand_in_the_order_of_groups_and_rules() -> None:
    second = group("sg-0000000c", "second", allow(udp(53), "10.2.0.0/16"))
    own = (interface("0000000a", "10.1.0.10", f"{APP} sg-0000000c", HOST),)
    content = case(
        allow(tcp(443), "10.3.0.0/16"), allow(tcp(80), "10.3.0.0/16"), own=own, more=(second,)
    )
    assert group_rules(compiled(content), V4) == accepts(
        f"{HTTPS} -s 10.3.0.0/16",
        "-p tcp -m tcp --dport 80:80 -s 10.3.0.0/16",
        "-p udp -m udp --dport 53:53 -s 10.2.0.0/16",
    )


def test_two_rules_for_the_same_members_share_a_set() -> None:
    dataplane = compiled(case(allow(tcp(443), WEB), allow(udp(53), WEB)))
    assert [(entry.family, entry.members) for entry in dataplane.sets] == [
        (V4, ("10.2.0.10", "10.2.16.0/28")),
        (V6, ("fd00:2::10",)),
    ]


def test_many_sources_of_a_service_are_one_look_up() -> None:
    networks = [f"10.{second}.0.0/16" for second in (3, 4, 5, 6)]
    rules = [allow(tcp(443), network) for network in networks]
    few, many = (compiled(case(*rules[:count], allow(udp(53), WEB))) for count in (3, 4))
    assert group_rules(few, V4) == accepts(
        *(f"{HTTPS} -s {network}" for network in networks[:3]), f"{DNS} {EU_MEMBERS}"
    )
    assert group_rules(many, V4) == accepts(
        f"{HTTPS} from union{{{' '.join(networks)}}}", f"{DNS} {EU_MEMBERS}"
    )


def test_one_source_that_is_everybody_needs_no_union() -> None:
    rules = [allow(tcp(443), f"10.{second}.0.0/16") for second in (3, 4, 5)]
    dataplane = compiled(case(*rules, allow(tcp(443), "0.0.0.0/0")))
    assert dataplane.sets == ()


def test_no_rule_means_no_set_and_everything_denied() -> None:
    dataplane = compiled(case())
    assert dataplane.sets == ()
    assert group_rules(dataplane, V4) == group_rules(dataplane, V6) == [DENIED]


def test_comments_name_group_rule_service_and_peer() -> None:
    rule = allow(tcp(443), "10.2.0.0/16", "10.3.0.0/16", "pl-0000000a", WEB)
    dataplane = compiled(case(rule, allow(Everything(), "0.0.0.0/0"), allow(icmp(8), "10.2.0.9")))
    assert comments(dataplane, V4, "reyes-ingress")[4:] == [
        f"{APP} rule 1: tcp 443 from cidrs",
        f"{APP} rule 1: tcp 443 from pl-0000000a",
        f"{APP} rule 1: tcp 443 from {WEB}",
        f"{APP} rule 2: all from 0.0.0.0/0",
        f"{APP} rule 3: icmp 8 from 10.2.0.9",
        "denied: no rule of eni-0000000a allows it",
    ]


ALLOWED_V4 = [
    "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
    "-p icmp -m icmp --icmp-type 3 -j RETURN",
    "-p icmp -m icmp --icmp-type 11 -j RETURN",
    "-p icmp -m icmp --icmp-type 12 -j RETURN",
]
ALLOWED_V6 = [
    "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
    *(
        f"-p icmpv6 -m icmp6 --icmpv6-type {kind} -j RETURN"
        for kind in (1, 2, 3, 4, 133, 134, 135, 136)
    ),
]
ALL_CHAINS = ["reyes-input", "reyes-ingress", "reyes-accept", "reyes-drop"]
NINE = FailsafeConfig(cidr="10.9.0.0/24")

# Configuration | reyes-input in IPv4 | reyes-input in IPv6 (reyes-ingress follows if it is named)
SCOPES: list[tuple[FollowerConfig, list[str], list[str]]] = [
    (
        FollowerConfig(),
        [
            "-i lo -j RETURN",
            "-s 10.1.0.0/16 -j RETURN",
            "-s 10.11.0.0/16 -j RETURN",
            "-s 10.0.0.0/8 -g reyes-ingress",
        ],
        ["-i lo -j RETURN"],
    ),
    (
        FollowerConfig(filtered_cidrs=("172.16.0.0/12", "fd00::/8", "10.0.0.0/8")),
        [
            "-i lo -j RETURN",
            "-s 10.1.0.0/16 -j RETURN",
            "-s 10.11.0.0/16 -j RETURN",
            "-s 172.16.0.0/12 -g reyes-ingress",
            "-s 10.0.0.0/8 -g reyes-ingress",
        ],
        ["-i lo -j RETURN", "-s fd00:1::/64 -j RETURN", "-s fd00::/8 -g reyes-ingress"],
    ),
    (
        FollowerConfig(filtered_cidrs=("fd00::/8",), failsafe=(NINE,)),
        ["-i lo -j RETURN", "-s 10.9.0.0/24 -j RETURN"],
        ["-i lo -j RETURN", "-s fd00:1::/64 -j RETURN", "-s fd00::/8 -g reyes-ingress"],
    ),
    (
        FollowerConfig(filtered_cidrs=("::/0", "fe80::/16", "2001:db8::/32")),
        ["-i lo -j RETURN"],
        [
            "-i lo -j RETURN",
            "-s fd00:1::/64 -j RETURN",
            "-s fe80::/10 -j RETURN",
            "-s ::/0 -g reyes-ingress",
            "-s fe80::/16 -g reyes-ingress",
            "-s 2001:db8::/32 -g reyes-ingress",
        ],
    ),
    (
        FollowerConfig(traffic="ipsec", failsafe=(NINE,)),
        [
            "-i lo -j RETURN",
            "-s 10.9.0.0/24 -j RETURN",
            "-m policy --dir in --pol ipsec -g reyes-ingress",
        ],
        ["-i lo -j RETURN", "-m policy --dir in --pol ipsec -g reyes-ingress"],
    ),
    (
        FollowerConfig(traffic="interface", interfaces=("wg0", "tun+")),
        ["-i lo -j RETURN", "-i wg0 -g reyes-ingress", "-i tun+ -g reyes-ingress"],
        ["-i lo -j RETURN", "-i wg0 -g reyes-ingress", "-i tun+ -g reyes-ingress"],
    ),
    (
        FollowerConfig(
            failsafe=(
                NINE,
                FailsafeConfig(cidr="10.9.0.1", protocol="tcp", port=22),
                FailsafeConfig(cidr="10.9.0.1", protocol="tcp"),
                FailsafeConfig(cidr="10.9.0.1", protocol="udp", port=500),
                FailsafeConfig(cidr="10.9.0.1", protocol="icmp"),
                FailsafeConfig(cidr="fd09::/64", protocol="icmpv6"),
                FailsafeConfig(cidr="fd09::1", protocol="tcp", port=22),
                FailsafeConfig(cidr="0.0.0.0/0", protocol="tcp", port=22),
            )
        ),
        [
            "-i lo -j RETURN",
            "-s 10.9.0.0/24 -j RETURN",
            "-s 10.9.0.1 -p tcp -m tcp --dport 22:22 -j RETURN",
            "-s 10.9.0.1 -p tcp -m tcp --dport 0:65535 -j RETURN",
            "-s 10.9.0.1 -p udp -m udp --dport 500:500 -j RETURN",
            "-s 10.9.0.1 -p icmp -j RETURN",
            "-s 0.0.0.0/0 -p tcp -m tcp --dport 22:22 -j RETURN",
            "-s 10.1.0.0/16 -j RETURN",
            "-s 10.11.0.0/16 -j RETURN",
            "-s 10.0.0.0/8 -g reyes-ingress",
        ],
        [
            "-i lo -j RETURN",
            "-s fd09::/64 -p icmpv6 -j RETURN",
            "-s fd09::1 -p tcp -m tcp --dport 22:22 -j RETURN",
        ],
    ),
]


@pytest.mark.parametrize(("config", "v4", "v6"), SCOPES)
def test_every_scope_and_failsafe(config: FollowerConfig, v4: list[str], v6: list[str]) -> None:
    host = configured_host(config, HOST, "us-west-2")
    dataplane = compile_policy(resolve(verified(case()), host))
    for family, expected, allowed in ((V4, v4, ALLOWED_V4), (V6, v6, ALLOWED_V6)):
        assert chain_lines(dataplane, family, "reyes-input") == expected
        judged = any(line.endswith("-g reyes-ingress") for line in expected)
        assert chain_names(dataplane, family) == (ALL_CHAINS if judged else ALL_CHAINS[:1])
        if judged:
            assert chain_lines(dataplane, family, "reyes-ingress") == [*allowed, DENIED]


LIMIT = "-m limit --limit 3/min --limit-burst 10"

# Options | reyes-accept | reyes-drop in IPv4 | reyes-drop in IPv6
ENDS: list[tuple[dict[str, Any], list[str], list[str], list[str]]] = [
    ({}, ["-j RETURN"], ["-j DROP"], ["-j DROP"]),
    (
        {"denied": "reject"},
        ["-j RETURN"],
        ["-j REJECT --reject-with icmp-admin-prohibited"],
        ["-j REJECT --reject-with icmp6-adm-prohibited"],
    ),
    (
        {"log_accept": True},
        [f'{LIMIT} -j LOG --log-prefix "reyes-accept: "', "-j RETURN"],
        ["-j DROP"],
        ["-j DROP"],
    ),
    (
        # Audit mode: logged and let through, whatever else is asked for.
        {"enforce": False, "denied": "reject", "log_drop": True},
        ["-j RETURN"],
        [f'{LIMIT} -j LOG --log-prefix "reyes-audit: "', "-j RETURN"],
        [f'{LIMIT} -j LOG --log-prefix "reyes-audit: "', "-j RETURN"],
    ),
    (
        {"log_drop": True},
        ["-j RETURN"],
        [f'{LIMIT} -j LOG --log-prefix "reyes-drop: "', "-j DROP"],
        [f'{LIMIT} -j LOG --log-prefix "reyes-drop: "', "-j DROP"],
    ),
]


@pytest.mark.parametrize(("options", "accept", "drop4", "drop6"), ENDS)
def test_every_end(
    options: dict[str, Any], accept: list[str], drop4: list[str], drop6: list[str]
) -> None:
    dataplane = compiled(case(), **options)
    for family, drop in ((V4, drop4), (V6, drop6)):
        assert chain_lines(dataplane, family, "reyes-accept") == accept
        assert chain_lines(dataplane, family, "reyes-drop") == drop


def test_strictly_only_replies_are_let_through_unasked() -> None:
    dataplane = compiled(case(), established="strict")
    for family, allowed in ((V4, ALLOWED_V4), (V6, ALLOWED_V6)):
        assert chain_lines(dataplane, family, "reyes-ingress") == [
            "-m conntrack --ctstate ESTABLISHED,RELATED --ctdir REPLY -j RETURN",
            *allowed[1:],
            DENIED,
        ]


SECOND_GROUP = group("sg-0000000c", "second", allow(udp(53), "10.2.0.0/16"))


def two_interfaces(groups: str) -> Content:
    own = (
        OWN_INTERFACE,
        interface("0000001a", "10.1.0.11 10.1.16.0/28 fd00:1::11", groups, HOST, device=1),
    )
    return case(allow(tcp(443), "10.2.0.0/16"), own=own, more=(SECOND_GROUP,))


def test_an_interface_with_other_groups_has_rules_of_its_own() -> None:
    dataplane = compiled(two_interfaces("sg-0000000c"))
    own_chain = "reyes-eni-0000001a"
    assert chain_names(dataplane, V4) == [
        "reyes-input",
        "reyes-ingress",
        own_chain,
        "reyes-accept",
        "reyes-drop",
    ]
    assert group_rules(dataplane, V4) == [
        f"-d 10.1.0.11 -g {own_chain}",
        f"-d 10.1.16.0/28 -g {own_chain}",
        *accepts(f"{HTTPS} -s 10.2.0.0/16"),
    ]
    assert chain_lines(dataplane, V4, own_chain) == [
        *ALLOWED_V4[1:],
        *accepts("-p udp -m udp --dport 53:53 -s 10.2.0.0/16"),
    ]
    assert group_rules(dataplane, V6) == [f"-d fd00:1::11 -g {own_chain}", DENIED]
    assert chain_lines(dataplane, V6, own_chain) == [*ALLOWED_V6[1:], DENIED]
    assert comments(dataplane, V4, own_chain)[-1] == "denied: no rule of eni-0000001a allows it"


def test_an_interface_without_groups_lets_nothing_in() -> None:
    dataplane = compiled(two_interfaces(""))
    assert chain_lines(dataplane, V4, "reyes-eni-0000001a") == [*ALLOWED_V4[1:], DENIED]


def test_interfaces_with_equal_groups_share_their_rules() -> None:
    dataplane = compiled(two_interfaces(APP))
    assert chain_names(dataplane, V4) == ALL_CHAINS
    assert group_rules(dataplane, V4) == accepts(f"{HTTPS} -s 10.2.0.0/16")


def sharing_interfaces(number: int, addresses: str) -> tuple[Interface, ...]:
    return tuple(
        interface(f"0000001{n}", addresses.format(n), "sg-0000000c", HOST, device=n)
        for n in range(1, number + 1)
    )


def test_other_interfaces_with_equal_groups_share_theirs() -> None:
    """As on a host of containers, all of whose interfaces but the primary have the same groups."""
    others = sharing_interfaces(5, "10.1.0.2{0} fd00:1::2{0}")
    apart = interface("0000002a", "10.1.0.30", "", HOST, device=6)
    own = (OWN_INTERFACE, *others[:2], apart, *others[2:])
    dataplane = compiled(case(allow(tcp(443), "10.2.0.0/16"), own=own, more=(SECOND_GROUP,)))

    shared = "reyes-eni-00000011"
    assert group_rules(dataplane, V4) == [
        *(f"-d 10.1.0.2{n} -g {shared}" for n in range(1, 6)),
        "-d 10.1.0.30 -g reyes-eni-0000002a",
        *accepts(f"{HTTPS} -s 10.2.0.0/16"),
    ]
    start, end = ALL_CHAINS[:2], ALL_CHAINS[2:]
    assert chain_names(dataplane, V4) == [*start, shared, "reyes-eni-0000002a", *end]
    assert chain_names(dataplane, V6) == [*start, shared, *end]
    assert comments(dataplane, V4, shared)[-1] == (
        "denied: no rule of eni-00000011, eni-00000012 and 3 more allows it"
    )


def test_up_to_three_interfaces_are_named() -> None:
    own = (OWN_INTERFACE, *sharing_interfaces(3, "10.1.0.2{0}"))
    dataplane = compiled(case(own=own, more=(SECOND_GROUP,)))
    assert comments(dataplane, V4, "reyes-eni-00000011")[-1] == (
        "denied: no rule of eni-00000011, eni-00000012, eni-00000013 allows it"
    )


@pytest.mark.parametrize(("many", "looked_up"), [(4, False), (5, True)])
def test_many_addresses_are_one_look_up(many: int, looked_up: bool) -> None:
    others = sharing_interfaces(many, "10.1.{0}.1 10.1.{0}.2 10.1.{0}.3 10.1.{0}.4")
    dataplane = compiled(case(own=(OWN_INTERFACE, *others), more=(SECOND_GROUP,)))
    addresses = [address for other in others for address in other.addresses]
    one_by_one = [f"-d {address} -g reyes-eni-00000011" for address in addresses]
    at_once = [f"to eni-000{{{' '.join(addresses)}}} -g reyes-eni-00000011"]
    assert group_rules(dataplane, V4)[:-1] == (at_once if looked_up else one_by_one)
    if looked_up:
        way = comments(dataplane, V4, "reyes-ingress")[1]
        assert way == "to eni-00000011, eni-00000012 and 3 more"


def test_an_address_of_two_interfaces_is_the_primary_ones() -> None:
    own = (OWN_INTERFACE, changed(OWN_INTERFACE, id="eni-0000001a", device=1, groups=()))
    dataplane = compiled(case(own=own))
    assert group_rules(dataplane, V4) == [DENIED]
    assert chain_names(dataplane, V4) == ALL_CHAINS
