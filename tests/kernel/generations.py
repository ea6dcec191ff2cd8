"""Generations of a policy, and the packets that tell which of them is in force.

Each generation opens other ports to other members than its neighbours, so that the verdicts on
`PACKETS` tell which one is in force in a family, whole: a mixture of two is none of them. What
must hold in all of them (the failsafe, what is not judged, a rule that never changes) is among
the packets.
"""

from functools import cache
from ipaddress import ip_address

from reyes.host import Failsafe, Host, VpcScope
from reyes.net import Family, Service, parse_network
from reyes.netfilter.evaluate import Packet
from reyes.ruleset import Content, Region
from tests.kernel.packets import TCP
from tests.oracle import verdict
from tests.worlds import EU_VPC, WEST_VPC, allow, group, interface, tcp, vpc, world

COLOURS = 3
"""So many generations differ from each other, then they come round."""

INSTANCE, APP, MEMBERS, STAFF = "i-0000000a", "sg-0000000a", "sg-0000000b", "sg-0000000c"
HERE = {4: "10.1.0.10", 6: "fd00:1::10"}
NETWORK = {4: "10.2.0.", 6: "fd00:2::"}
SAFE = {4: "10.9.0.1", 6: "fd00:9::1"}
STRANGER = {4: "192.0.2.1", 6: "2001:db8::1"}


@cache
def policy(generation: int, staff: Service = tcp(3000)) -> Content:  # noqa: B008 - frozen
    """Generation n opens port 1000 + n % 3 to one member, and 3000 to the staff as ever."""
    colour = generation % COLOURS
    members = " ".join(f"{net}{10 + colour}" for net in NETWORK.values())
    everybody = " ".join(f"{net}99" for net in NETWORK.values())
    west = Region(
        name="us-west-2",
        vpcs=(vpc(WEST_VPC, "10.1.0.0/16", "fd00:1::/64"),),
        groups=(
            group(APP, "app", allow(tcp(1000 + colour), MEMBERS), allow(staff, STAFF)),
            group(MEMBERS, "members"),
            group(STAFF, "staff"),
        ),
        interfaces=(interface("0000000a", f"{HERE[4]} {HERE[6]}", APP, INSTANCE),),
    )
    eu = Region(
        name="eu-west-1",
        vpcs=(vpc(EU_VPC, "10.2.0.0/16"),),
        groups=(
            group("sg-000000e0", "members", vpc=EU_VPC),
            group("sg-000000e1", "staff", vpc=EU_VPC),
        ),
        interfaces=(
            interface("000000e0", members, "sg-000000e0", "i-000000e0", vpc=EU_VPC),
            interface("000000e1", everybody, "sg-000000e1", "i-000000e1", vpc=EU_VPC),
        ),
    )
    return world(eu, west)


HOST = Host(
    instance_id=INSTANCE,
    region="us-west-2",
    scope=VpcScope((parse_network("10.0.0.0/8"), parse_network("fd00::/8"))),
    failsafe=tuple(Failsafe(parse_network(f"{SAFE[v]}"), tcp(22)) for v in (4, 6)),
)


def _packets(version: int) -> tuple[Packet, ...]:
    wanted = [
        (f"{NETWORK[version]}{10 + member}", 1000 + port)
        for member in range(COLOURS)
        for port in range(COLOURS)
    ]
    wanted += [(f"{NETWORK[version]}99", 3000), (f"{NETWORK[version]}10", 3000)]
    wanted += [(SAFE[version], 22), (SAFE[version], 23), (STRANGER[version], 1)]
    return tuple(
        Packet(
            source=ip_address(source),
            destination=ip_address(HERE[version]),
            protocol=TCP,
            port=port,
            interface="eth0",
        )
        for source, port in wanted
    )


PACKETS = {Family.V4: _packets(4), Family.V6: _packets(6)}
UNFILTERED = -1
"""What is in force where no rule of ours is."""


@cache
def expected(family: Family) -> dict[tuple[bool, ...], int]:
    """Which colour each row of verdicts stands for, by the oracle."""
    rows = {
        tuple(verdict(policy(colour), HOST, packet) != "denied" for packet in PACKETS[family]): (
            colour
        )
        for colour in range(COLOURS)
    }
    assert len(rows) == COLOURS
    return {**rows, (True,) * len(PACKETS[family]): UNFILTERED}


def shown(family: Family, row: tuple[bool, ...]) -> str:
    """Say which packets passed."""
    verdicts = (
        f"{packet.source} to {packet.port}: {'passed' if passed else 'stopped'}"
        for packet, passed in zip(PACKETS[family], row, strict=True)
    )
    return "\n".join((f"no policy judges so in {family}:", *verdicts))
