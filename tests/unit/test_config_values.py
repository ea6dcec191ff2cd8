"""Values of the configuration, one by one: the possible, the impossible and the contradictory."""

from typing import Any

import pytest

from reyes.config import parse_config
from tests.configurations import KEY, altered, problems_of

POSSIBLE: list[tuple[str, Any]] = [
    ("environment", "eu/prod:2.0_a-b"),
    ("s3.bucket", "a.b-c9"),
    ("leader.group_matching", "id"),
    ("leader.group_matching", "tag:Role of host"),
    ("leader.validity", 60),
    ("leader.validity", 604_800),
    ("leader.max_shrink", 0),
    ("leader.max_shrink", 1),
    ("leader.sources[1].role_arn", "arn:aws-us-gov:iam::123456789012:role/path/to/reyes"),
    ("leader.sources[0].vpcs", ["vpc-0123456789abcdef0"]),
    ("leader.excluded_group_names", ["a name; with, all kinds"]),
    ("follower.filtered_cidrs", ["10.0.0.0/8", "fd00::/8", "172.16.0.1"]),
    ("follower.filtered_cidrs", ["0.0.0.0/0", "::/0"]),
    ("follower.traffic", "ipsec"),
    ("follower.filter_table", "exclusive"),
    ("follower.denied", "reject"),
    ("follower.failsafe", [{"cidr": "10.9.0.1"}]),
    ("follower.failsafe", [{"cidr": "10.9.0.0/24", "protocol": "tcp", "port": 65535}]),
    ("follower.failsafe", [{"cidr": "fd00::/64", "protocol": "icmpv6"}]),
    ("follower.instance_id", "i-0123456789abcdef0"),
    ("follower.nf_conntrack_max", 262_144),
    ("follower.deadline", 3600),
    ("follower.established", "strict"),
    ("follower.enforce", False),
    ("follower.probes", ["10.0.0.2:22", "[fd00::2]:65535", "db.example.com:5432"]),
]


@pytest.mark.parametrize(("path", "value"), POSSIBLE)
def test_what_is_possible_is_taken(path: str, value: Any) -> None:
    parse_config(altered(path, value), "c")


CIDR = "a network such as 10.0.0.0/8, without host bits"
PATH = "an absolute path"
PRINT = "the 40 hexadecimal digits of a primary key's fingerprint (put it in quotes)"
NAME = "a name of at most 64 letters, digits and ._:/-"
NIC = "an interface name of at most 15 characters, such as wg0 or tun+"
REGION = "a region's name such as us-west-2"
PROBE = "a TCP service such as 10.0.0.2:22 or [2001:db8::2]:22"
PORTS = {"cidr": "10.9.0.0/24", "protocol": "tcp"}

IMPOSSIBLE: list[tuple[str, Any, str]] = [
    ("environment", "", NAME),
    ("environment", "two words", NAME),
    ("environment", "x" * 65, NAME),
    ("environment", "production\n", NAME),
    ("environment", True, NAME),
    ("environment", None, NAME),
    ("s3.bucket", "Acme", "an S3 bucket name"),
    ("s3.bucket", "ab", "an S3 bucket name"),
    ("s3.key", "/production/ruleset.gpg", "an object key without leading slash"),
    ("s3.key", "", "an object key without leading slash"),
    ("s3.region", "US West", REGION),
    ("s3.region", "us-west-2\n", REGION),
    ("signing.keyring_directory", "keyring", PATH),
    ("signing.keyring_directory", "~/keyring", PATH),
    ("signing.signing_key", KEY[:-1], PRINT),
    ("signing.signing_key", KEY + "0", PRINT),
    ("signing.signing_key", KEY[:-8], PRINT),
    ("signing.signing_key", "0x" + KEY[:-2], PRINT),
    ("signing.signing_key", "reyes@example.com", PRINT),
    ("signing.signing_key", int("1" * 40), PRINT),
    ("signing.trusted_keys", KEY, "a list"),
    ("signing.trusted_keys[0]", "short", PRINT),
    ("leader.sources", [], "a list of length >= 1"),
    ("leader.sources", {"region": "us-west-2"}, "a list"),
    ("leader.sources[0]", "us-west-2", "a mapping"),
    ("leader.sources[0].region", "", REGION),
    ("leader.sources[0].vpcs", [], "a list of length >= 1"),
    ("leader.sources[0].vpcs", "vpc-0a1b2c3d", "a list"),
    ("leader.sources[0].vpcs[0]", "vpc-xyz", "a VPC's id such as vpc-0a1b2c3d"),
    ("leader.sources[1].role_arn", "reyes-leader", "a role's ARN such as"),
    ("leader.sources[1].role_arn", "arn:aws:iam::123:role/x", "a role's ARN such as"),
    ("leader.excluded_group_names", "vpn-allow-all", "a list"),
    ("leader.excluded_group_names[0]", 7, "a text"),
    ("leader.group_matching", "tag", "name, id or tag:KEY"),
    ("leader.group_matching", "tag:", "name, id or tag:KEY"),
    ("leader.group_matching", "Name", "name, id or tag:KEY"),
    ("leader.validity", 59, "a whole number >= 60"),
    ("leader.validity", 604_801, "a whole number <= 604800"),
    ("leader.validity", "1h", "a whole number"),
    ("leader.validity", True, "a whole number"),
    ("leader.max_shrink", 1.1, "a number <= 1.0"),
    ("leader.max_shrink", -0.1, "a number >= 0.0"),
    ("leader.max_shrink", float("nan"), "a number >= 0.0"),
    ("leader.max_shrink", "30%", "a number"),
    ("follower.traffic", "all", "one of vpc, ipsec, interface"),
    ("follower.interfaces[0]", "x" * 16, NIC),
    ("follower.interfaces[0]", "eth 0", NIC),
    ("follower.interfaces[0]", "tun+0", NIC),
    ("follower.interfaces[0]", "+", NIC),
    ("follower.interfaces[0]", "wg0\n", NIC),
    ("follower.interfaces[0]", "", NIC),
    ("follower.filtered_cidrs", "10.0.0.0/8", "a list"),
    ("follower.filtered_cidrs", None, "a list"),
    ("follower.filtered_cidrs[0]", "10.0.0.0/40", CIDR),
    ("follower.filtered_cidrs[0]", "10.0.0.1/8", CIDR),
    ("follower.filtered_cidrs[0]", "10.0.0", CIDR),
    ("follower.filtered_cidrs[0]", "fe80::%eth0/64", CIDR),
    ("follower.filtered_cidrs[0]", "::/129", CIDR),
    ("follower.filtered_cidrs[0]", 10, CIDR),
    ("follower.filter_table", "mine", "one of shared, exclusive"),
    ("follower.denied", "block", "one of drop, reject"),
    ("follower.denied", False, "one of drop, reject"),
    ("follower.failsafe[0]", "10.9.0.0/24", "a mapping"),
    ("follower.failsafe[0]", {"cidr": "10.9.0.0/33"}, CIDR),
    ("follower.failsafe[0]", PORTS | {"port": 65_536}, "a whole number <= 65535"),
    ("follower.failsafe[0]", PORTS | {"port": -1}, "a whole number >= 0"),
    ("follower.failsafe[0]", PORTS | {"port": "22"}, "a whole number"),
    ("follower.failsafe[0]", PORTS | {"protocol": "gre"}, "one of tcp, udp, icmp, icmpv6, all"),
    ("follower.disable_file", "disabled", PATH),
    ("follower.state_directory", "", PATH),
    ("follower.instance_id", "0a1b2c3d", "an instance's id such as i-0a1b2c3d"),
    ("follower.region", "", REGION),
    ("follower.nf_conntrack_max", 0, "a whole number >= 1"),
    ("follower.nf_conntrack_max", 2**31, "a whole number <= 2147483647"),
    ("follower.deadline", 0, "a whole number >= 1"),
    ("follower.deadline", 3601, "a whole number <= 3600"),
    ("follower.enforce", "no", "true or false"),
    ("follower.established", "never", "one of aws, strict"),
    ("follower.probes", "10.0.0.2:22", "a list"),
    ("follower.probes[0]", "10.0.0.2", PROBE),
    ("follower.probes[0]", "10.0.0.2:", PROBE),
    ("follower.probes[0]", "10.0.0.2:0", PROBE),
    ("follower.probes[0]", "10.0.0.2:65536", PROBE),
    ("follower.probes[0]", "10.0.0.2:22\n", PROBE),
    ("follower.probes[0]", "fd00::2:22", PROBE),
    ("follower.probes[0]", "[fd00:::2]:22", PROBE),
    ("follower.probes[0]", "db..example.com:22", PROBE),
    ("follower.confirm_timeout", 0, "a whole number >= 1"),
    ("follower.metrics_file", "reyes.prom", PATH),
    ("leader.metrics_file", "reyes.prom", PATH),
    ("follower.log_drop", 1, "true or false"),
    ("follower.log_accept", "yes please", "true or false"),
    ("follower", None, "a mapping"),
    ("follower", [], "a mapping"),
    ("s3", "acme-reyes", "a mapping"),
]


@pytest.mark.parametrize(("path", "value", "expected"), IMPOSSIBLE)
def test_what_is_impossible_is_refused_by_path(path: str, value: Any, expected: str) -> None:
    (problem,) = problems_of(altered(path, value))
    assert problem.startswith(path)
    assert f": expected {expected}" in problem
    assert ", got " in problem


def test_values_that_contradict_each_other_are_refused() -> None:
    def told(path: str, value: Any) -> str:
        return problems_of(altered(path, value))[0]

    assert told("leader.sources[2]", {"region": "us-west-2"}) == (
        "leader.sources[2]: region us-west-2 is there twice"
    )
    assert told("follower.traffic", "interface") == (
        "follower.interfaces: expected at least one name with traffic: interface"
    )
    assert told("follower.interfaces", ["wg0"]) == (
        "follower.interfaces: has no meaning with traffic: vpc"
    )
    assert told("follower.filtered_cidrs", []) == (
        "follower.filtered_cidrs: expected at least one network with traffic: vpc"
    )
    assert told("follower.failsafe", [{"cidr": "10.9.0.0/24", "port": 22}]) == (
        "follower.failsafe[0].port: has no meaning for protocol all"
    )
    assert told("follower.failsafe", [{"cidr": "10.9.0.0/24", "protocol": "icmpv6"}]) == (
        "follower.failsafe[0].protocol: icmpv6 does not exist in 10.9.0.0/24"
    )
    assert told("follower.failsafe", [{"cidr": "::/0", "protocol": "icmp"}]) == (
        "follower.failsafe[0].protocol: icmp does not exist in ::/0"
    )


def test_one_region_of_two_accounts_is_not_a_region_twice() -> None:
    role = "arn:aws:iam::123456789012:role/reyes-leader"
    parse_config(altered("leader.sources[2]", {"region": "us-west-2", "role_arn": role}), "c")
