"""The configuration's view of this host."""

import pytest

from reyes.config import FailsafeConfig, FollowerConfig
from reyes.host import (
    Failsafe,
    InterfaceScope,
    IpsecScope,
    Scope,
    VpcScope,
    configured_host,
)
from reyes.net import Everything, Service, parse_network
from tests.worlds import icmp, icmpv6, tcp, udp


@pytest.mark.parametrize(
    ("config", "scope"),
    [
        (FollowerConfig(), VpcScope((parse_network("10.0.0.0/8"),))),
        (
            FollowerConfig(filtered_cidrs=("10.0.0.0/8", "fd00::/8")),
            VpcScope((parse_network("10.0.0.0/8"), parse_network("fd00::/8"))),
        ),
        (FollowerConfig(traffic="ipsec"), IpsecScope()),
        (
            FollowerConfig(traffic="interface", interfaces=("wg0", "tun+")),
            InterfaceScope(("wg0", "tun+")),
        ),
    ],
)
def test_traffic_becomes_a_scope(config: FollowerConfig, scope: Scope) -> None:
    assert configured_host(config, "i-0000000a", None).scope == scope


@pytest.mark.parametrize(
    ("entry", "service"),
    [
        (FailsafeConfig(cidr="10.9.0.0/24"), Everything()),
        (FailsafeConfig(cidr="10.9.0.0/24", protocol="all"), Everything()),
        (FailsafeConfig(cidr="10.9.0.0/24", protocol="tcp", port=22), tcp(22)),
        (FailsafeConfig(cidr="10.9.0.0/24", protocol="tcp"), tcp(0, 65535)),
        (FailsafeConfig(cidr="10.9.0.0/24", protocol="udp", port=0), udp(0)),
        (FailsafeConfig(cidr="10.9.0.0/24", protocol="icmp"), icmp()),
        (FailsafeConfig(cidr="fd09::/64", protocol="icmpv6"), icmpv6()),
    ],
)
def test_each_kind_of_failsafe(entry: FailsafeConfig, service: Service) -> None:
    host = configured_host(FollowerConfig(failsafe=(entry,)), "i-0000000a", None)
    assert host.failsafe == (Failsafe(parse_network(entry.cidr), service),)


def test_the_rest_is_taken_over() -> None:
    config = FollowerConfig(
        denied="reject", enforce=False, established="strict", log_accept=True, log_drop=True
    )
    host = configured_host(config, "i-0000000a", "us-west-2")
    assert (host.instance_id, host.region) == ("i-0000000a", "us-west-2")
    assert (host.denied, host.enforce, host.established) == ("reject", False, "strict")
    assert (host.log_accept, host.log_drop) == (True, True)
    plain = configured_host(FollowerConfig(), "i-0000000a", None)
    assert (plain.region, plain.failsafe) == (None, ())
    assert (plain.denied, plain.enforce, plain.established) == ("drop", True, "aws")
    assert (plain.log_accept, plain.log_drop) == (False, False)
