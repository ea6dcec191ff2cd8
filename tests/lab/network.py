"""The lab's machines and cables, as network namespaces of the guest."""

from reyes.demo.namespaces import Namespace
from tests.lab.places import (
    EAST,
    EAST_OUTSIDE,
    FAR_NETWORKS,
    INTERNET_EAST,
    INTERNET_WEST,
    MEMBER,
    NEIGHBOUR,
    STRANGER,
    TUNNEL,
    WEB,
    WEST,
    WEST_NETWORKS,
    WEST_OUTSIDE,
    Place,
)


class Network:
    """All machines, connected; whatever goes between the VPCs goes in clear, so far."""

    def __init__(self) -> None:
        self.west, self.web, self.neighbour = Namespace(), Namespace(), Namespace()
        self.internet, self.east, self.far = Namespace(), Namespace(), Namespace()
        self._lay_cables()
        self._give_addresses()
        for router in (self.west, self.internet, self.east):
            router.sysctl("net/ipv4/ip_forward", 1)
            router.sysctl("net/ipv6/conf/all/forwarding", 1)

    def route_through_tunnel(self) -> None:
        """Send the traffic between the VPCs through a GRE tunnel of the two VPN routers."""
        for router, own, other, networks in (
            (self.west, WEST_OUTSIDE, EAST_OUTSIDE, FAR_NETWORKS),
            (self.east, EAST_OUTSIDE, WEST_OUTSIDE, WEST_NETWORKS),
        ):
            router.ip(
                f"link add {TUNNEL} type gre local {own.v4} remote {other.v4}",
                f"link set {TUNNEL} up",
                *(f"route replace {network} dev {TUNNEL}" for network in networks),
            )

    def route_in_clear(self) -> None:
        """Send the traffic between the VPCs from router to router, without a tunnel interface."""
        for router, gateway, networks in (
            (self.west, INTERNET_WEST, FAR_NETWORKS),
            (self.east, INTERNET_EAST, WEST_NETWORKS),
        ):
            router.ip(*_routes(networks, gateway))

    def _lay_cables(self) -> None:
        self.west.connect("web", self.web, "eth0")
        self.west.connect("neighbour", self.neighbour, "eth0")
        self.west.connect("outside", self.internet, "west")
        self.east.connect("outside", self.internet, "east")
        self.east.connect("vpc", self.far, "eth0")
        self.west.ip(
            "link add vpc type bridge",
            *(f"link set {port} master vpc up" for port in ("web", "neighbour")),
        )

    def _give_addresses(self) -> None:
        self.west.ip(*_up("vpc", WEST), *_up("outside", WEST_OUTSIDE))
        self.east.ip(*_up("vpc", EAST), *_up("outside", EAST_OUTSIDE))
        self.internet.ip(
            *_up("west", INTERNET_WEST),
            *_up("east", INTERNET_EAST),
            *_routes(WEST_NETWORKS, WEST_OUTSIDE),
            *_routes(FAR_NETWORKS, EAST_OUTSIDE),
        )
        for host, gateway, places in (
            (self.web, WEST, (WEB,)),
            (self.neighbour, WEST, (NEIGHBOUR,)),
            (self.far, EAST, (MEMBER, STRANGER)),
        ):
            addresses = [command for place in places for command in _up("eth0", place)]
            host.ip(*addresses, *_routes(("0.0.0.0/0", "::/0"), gateway))
        for router, gateway in ((self.west, INTERNET_WEST), (self.east, INTERNET_EAST)):
            router.ip(*_routes(("0.0.0.0/0", "::/0"), gateway))


def _up(interface: str, place: Place) -> tuple[str, ...]:
    return (
        f"address add {place.v4}/24 dev {interface}",
        f"address add {place.v6}/64 dev {interface} nodad",
        f"link set {interface} up",
    )


def _routes(networks: tuple[str, ...], gateway: Place) -> list[str]:
    return [
        f"route replace {network} via {gateway.v6 if ':' in network else gateway.v4}"
        for network in networks
    ]
