"""The network: a namespace per station, and the router that AWS cannot see into.

Every station hangs on a cable of its own at one router, which stands for the routing of both
VPCs and for the tunnel between them. It forwards everything: what is denied, a station denied.
"""

import socket
from collections.abc import Iterable

from reyes.demo.evidence import counters
from reyes.demo.namespaces import Closing, Namespace
from reyes.demo.probe import Outcome, listen, send
from reyes.demo.story import Probe, Station
from reyes.net import Service

SERVICES_ADDRESS = "192.0.2.1"
"""Where stations find the simulated S3 and EC2: outside of the tunnel's networks, as in life."""

_GATEWAY = "169.254.0.1"


class Fabric(Closing):
    """All namespaces, cabled, with a listener wherever a probe will knock."""

    def __init__(self, stations: Iterable[Station]) -> None:
        self.router = Namespace()
        self.router.ip(f"address add {SERVICES_ADDRESS}/32 dev lo")
        self.router.sysctl("net/ipv4/ip_forward", 1)
        self.stations: dict[str, Namespace] = {}
        self._addresses: dict[str, str] = {}
        self._listeners: dict[tuple[str, Service], socket.socket | None] = {}
        for station in stations:
            self._add(station)

    def listen(self, probes: Iterable[Probe]) -> None:
        """Open every service that a probe asks for."""
        for probe in probes:
            door = (probe.destination, probe.service)
            if door not in self._listeners:
                self._listeners[door] = listen(self.stations[probe.destination], probe.service)

    def send(self, probe: Probe) -> tuple[Outcome, list[str]]:
        """Send a probe and read from the destination's kernel which rules it met."""
        destination = self.stations[probe.destination]
        before = destination.call(counters)
        outcome = send(
            self.stations[probe.source],
            self._addresses[probe.destination],
            probe.service,
            self._listeners[probe.destination, probe.service],
        )
        return outcome, sorted(destination.call(counters) - before)

    def close(self) -> None:
        """Take the network down."""
        for listener in self._listeners.values():
            if listener is not None:
                listener.close()
        for namespace in (self.router, *self.stations.values()):
            namespace.close()

    def _add(self, station: Station) -> None:
        namespace = Namespace()
        self.router.connect(station.name, namespace, "eth0")
        self.router.ip(
            f"address add {_GATEWAY}/32 dev {station.name}",
            f"link set {station.name} up",
            f"route add {station.address}/32 dev {station.name}",
        )
        namespace.ip(
            f"address add {station.address}/32 dev eth0",
            "link set eth0 up",
            f"route add default via {_GATEWAY} dev eth0 onlink",
        )
        self.stations[station.name] = namespace
        self._addresses[station.name] = station.address
