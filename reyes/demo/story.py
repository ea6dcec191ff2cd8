"""The story as data: two VPCs and what joins them, the groups, and what each probe must show.

The verdicts are written by hand from the groups below, as a person reads them: nothing that
Reyes computes had a part in them.
"""

from typing import Literal

from msgspec import Struct

from reyes.net import Everything, Icmp, Ports, Service

ANYWHERE = "0.0.0.0/0"
LAPTOPS = "10.9.0.0/24"
OPEN_GROUP = "vpn-allow-all"


class Site(Struct, frozen=True):
    """A region with one VPC; `behind_vpn` are the networks that reach it through the tunnel."""

    name: str
    region: str
    cidr: str
    behind_vpn: tuple[str, ...]


class Station(Struct, frozen=True):
    """A machine in the demo; without a site it is no instance, and no follower runs on it."""

    name: str
    address: str
    site: Site | None = None
    group: str | None = None


class Permission(Struct, frozen=True):
    """A service that a group opens to a network or to a group of that name in its own VPC."""

    service: Service
    cidr: str | None = None
    group: str | None = None


def open_permissions(site: Site) -> tuple[Permission, ...]:
    """Say what OPEN_GROUP lets in: the foreign networks one by one, never the VPC's own."""
    return tuple(Permission(Everything(), cidr=cidr) for cidr in site.behind_vpn)


class Probe(Struct, frozen=True):
    """A packet to send, whether the groups let it in, and why."""

    source: str
    destination: str
    service: Service
    allowed: Literal["yes", "no"]
    why: str


def tcp(first: int, last: int | None = None) -> Ports:
    """Say a TCP port or range."""
    return Ports("tcp", first, last or first)


STATSD = Ports("udp", 8125, 8125)
ECHO = Icmp("icmp", 8, -1)

US = Site("us", "us-west-2", "10.1.0.0/16", ("10.2.0.0/16", LAPTOPS))
EU = Site("eu", "eu-west-1", "10.2.0.0/16", ("10.1.0.0/16", LAPTOPS))
SITES = (US, EU)

STATIONS = (
    Station("us-web", "10.1.0.10", US, "web"),
    Station("us-app", "10.1.0.20", US, "app"),
    Station("us-bastion", "10.1.0.30", US, "bastion"),
    Station("eu-app", "10.2.0.20", EU, "app"),
    Station("eu-db", "10.2.0.40", EU, "db"),
    Station("eu-metrics", "10.2.0.50", EU, "metrics"),
    Station("laptop", "10.9.0.5"),
    Station("office", "203.0.113.7"),
)
INSTANCES = tuple(station for station in STATIONS if station.site)

# Every VPC has all of them, as a template would make them, and OPEN_GROUP.
GROUPS: dict[str, tuple[Permission, ...]] = {
    "web": (Permission(tcp(443), cidr=ANYWHERE),),
    "app": (Permission(tcp(8080, 8089), group="web"), Permission(ECHO, group="bastion")),
    "db": (Permission(tcp(5432), group="app"), Permission(tcp(22), group="bastion")),
    "metrics": (Permission(STATSD, group="app"),),
    "bastion": (Permission(tcp(22), cidr="203.0.113.0/24"),),
}

BASTION_TO_DB = Probe("us-bastion", "eu-db", tcp(22), "yes", "db lets in bastion for SSH")
WEB_TO_APP = Probe("us-web", "eu-app", tcp(8080), "yes", "app lets in web on 8080-8089")

PROBES = (
    Probe("us-app", "eu-db", tcp(5432), "yes", "db lets in app, us-app is in it"),
    Probe("us-web", "eu-db", tcp(5432), "no", "db lets in app only, not web"),
    BASTION_TO_DB,
    Probe("us-app", "eu-db", tcp(22), "no", "SSH to db is for bastion only"),
    WEB_TO_APP,
    Probe("us-web", "eu-app", tcp(8090), "no", "one port beyond 8080-8089"),
    Probe("us-bastion", "eu-app", ECHO, "yes", "bastion may ping app"),
    Probe("us-web", "eu-app", ECHO, "no", "only bastion may ping app"),
    Probe("us-app", "eu-metrics", STATSD, "yes", "metrics lets in app by UDP"),
    Probe("us-web", "eu-metrics", STATSD, "no", "metrics lets in app, not web"),
    Probe("eu-db", "us-web", tcp(443), "yes", "web is open to all, EU to US too"),
    Probe("eu-metrics", "us-app", tcp(8080), "no", "app lets in web, not metrics"),
    Probe("laptop", "us-web", tcp(443), "yes", "web is open to all, also by VPN"),
    Probe("laptop", "eu-db", tcp(5432), "no", "the laptop is in no group"),
    Probe("eu-app", "eu-db", tcp(5432), "yes", "inside a VPC AWS sees to it"),
    Probe("office", "us-bastion", tcp(22), "yes", "no VPN between: AWS sees to it"),
)

LEAVER, LEFT_GROUP = "us-app", "app"
AFTER_LEAVING = (
    Probe("us-app", "eu-db", tcp(5432), "no", "us-app is no longer in app"),
    Probe("us-app", "eu-metrics", STATSD, "no", "us-app is no longer in app"),
    BASTION_TO_DB,
    WEB_TO_APP,
)
