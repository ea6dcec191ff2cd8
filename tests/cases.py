"""A host's group with some rules, compiled."""

from typing import Any

from reyes.host import Host, Scope, VpcScope
from reyes.net import Family, parse_network
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.policy import resolve
from reyes.ruleset import Content, Ingress, Interface, PrefixList, Region, Vpc
from tests.lines import chain_lines
from tests.worlds import EU_VPC, WEST_VPC, group, interface, verified, vpc, world

V4, V6 = Family.V4, Family.V6
HOST = "i-0000000a"
APP, WEB, WEB_EU, API_EU = "sg-0000000a", "sg-0000000b", "sg-000000e0", "sg-000000e1"
OWN_VPC = vpc(WEST_VPC, "10.1.0.0/16", "10.11.0.0/16", "fd00:1::/64")
OWN_INTERFACE = interface("0000000a", "10.1.0.10 fd00:1::10", APP, HOST)
JUDGED = VpcScope((parse_network("10.0.0.0/8"), parse_network("fd00::/8")))
DENIED = "-g reyes-drop"


def case(
    *ingress: Ingress,
    own: tuple[Interface, ...] = (OWN_INTERFACE,),
    own_vpc: Vpc = OWN_VPC,
    name: str = "web",
    more: tuple[Any, ...] = (),
) -> Content:
    """The host's group with these rules, and `web` of two regions for them to refer to."""
    west = Region(
        name="us-west-2",
        vpcs=(own_vpc,),
        groups=(group(APP, "app", *ingress), group(WEB, name), *more),
        interfaces=(*own, interface("0000000b", "10.1.0.20 fd00:1::20", WEB)),
        prefix_lists=(
            PrefixList(id="pl-0000000a", cidrs=("10.20.0.0/16", "192.0.2.7", "fd00:20::/64")),
            PrefixList(id="pl-0000000b", cidrs=("192.0.2.7",)),
            PrefixList(id="pl-0000000c", cidrs=()),
            PrefixList(id="pl-0000000d", cidrs=("0.0.0.0/0", "10.0.0.0/8")),
        ),
    )
    eu = Region(
        name="eu-west-1",
        vpcs=(vpc(EU_VPC, "10.2.0.0/16", "fd00:2::/64"),),
        groups=(group(WEB_EU, name, vpc=EU_VPC),),
        interfaces=(
            interface("000000e0", "10.2.0.10 10.2.16.0/28 fd00:2::10", WEB_EU, vpc=EU_VPC),
        ),
    )
    return world(eu, west)


def compiled(content: Content, scope: Scope = JUDGED, **fields: Any) -> Dataplane:
    host = Host(instance_id=HOST, region="us-west-2", scope=scope, **fields)
    return compile_policy(resolve(verified(content), host))


def group_rules(dataplane: Dataplane, family: Family, chain: str = "reyes-ingress") -> list[str]:
    """What a chain says after established connections and innocuous ICMP."""
    return [line for line in chain_lines(dataplane, family, chain) if "-j RETURN" not in line]
