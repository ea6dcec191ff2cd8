"""Who is where in the lab, and what the groups say.

    neighbour 10.1.0.20 ---.
                           +--- west 10.1.0.1                              member 10.2.0.20 ---.
    web 10.1.0.10 ---------'         192.0.2.1                           stranger 10.2.0.30 ---+
                                     |                                                         |
                                     +--- internet --- 198.51.100.1 east 10.2.0.1 -------------'

West and web are instances of one VPC and run followers. Both are in the group `app`, which lets
the group `client` in on one port. Far is two instances of another VPC, of which only the member
is in that VPC's `client`. Whatever matters is there in both families.
"""

from dataclasses import dataclass
from pathlib import Path

FILES = Path("/tmp/reyes-lab")
"""Where the guest keeps the keys, configurations and rulesets that were made for it."""

OPEN_PORT = 8080
CLOSED_PORT = 9090
PORTS = (OPEN_PORT, CLOSED_PORT)

TUNNEL = "tunnel0"
"""The GRE interface on both VPN routers."""


@dataclass(frozen=True, slots=True)
class Place:
    """A machine's private addresses."""

    name: str
    v4: str
    v6: str

    @property
    def addresses(self) -> tuple[str, str]:
        """Both addresses."""
        return self.v4, self.v6


WEST_NETWORKS = ("10.1.0.0/16", "2001:db8:1::/64")
FAR_NETWORKS = ("10.2.0.0/16", "2001:db8:2::/64")

WEST = Place("west", "10.1.0.1", "2001:db8:1::1")
WEB = Place("web", "10.1.0.10", "2001:db8:1::10")
NEIGHBOUR = Place("neighbour", "10.1.0.20", "2001:db8:1::20")
EAST = Place("east", "10.2.0.1", "2001:db8:2::1")
MEMBER = Place("member", "10.2.0.20", "2001:db8:2::20")
STRANGER = Place("stranger", "10.2.0.30", "2001:db8:2::30")

WEST_OUTSIDE = Place("west outside", "192.0.2.1", "2001:db8:a::1")
EAST_OUTSIDE = Place("east outside", "198.51.100.1", "2001:db8:b::1")
INTERNET_WEST = Place("internet", "192.0.2.254", "2001:db8:a::fe")
INTERNET_EAST = Place("internet", "198.51.100.254", "2001:db8:b::fe")
