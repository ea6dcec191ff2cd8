"""What the lab shows, in order: each scope with packets that it judges, and with others."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from reyes.demo.namespaces import Namespace
from tests.lab.checks import Check
from tests.lab.ike import Tunnel
from tests.lab.network import Network
from tests.lab.places import (
    FILES,
    INTERNET_WEST,
    MEMBER,
    NEIGHBOUR,
    OPEN_PORT,
    PORTS,
    STRANGER,
    WEB,
    WEST,
    WEST_OUTSIDE,
    Place,
)
from tests.lab.traffic import Cable, Outcome, Probe, Servers, try_all

Verdict = Callable[[Place, int], bool]
"""Whether a packet of that place to that port is to pass."""

FOLLOWER = Path(sys.executable).with_name("reyes")


def groups_say(source: Place, port: int) -> bool:
    """Read the groups as a person does: `app` lets `client` in on one port."""
    return source is MEMBER and port == OPEN_PORT


def nobody(source: Place, port: int) -> bool:  # noqa: ARG001 - as every Verdict
    """Nothing is allowed."""
    return False


def everybody(source: Place, port: int) -> bool:  # noqa: ARG001 - as every Verdict
    """What is not judged passes."""
    return True


class Story:
    """Collects checks while it goes on."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self._network = Network()
        self._servers = Servers((self._network.west, self._network.web))
        self._cable = Cable(self._network.internet, "west")
        self._web_cable = Cable(self._network.web, "eth0")
        self._tunnel = Tunnel(self._network)
        self._scope = self._ruleset = ""

    def tell(self) -> None:
        """Go through all three scopes."""
        self._ipsec()
        self._vpc()
        self._interface()

    def _ipsec(self) -> None:
        self._follow("ipsec", self._network.west, "west-ipsec", "nothing")
        self._from_far(WEST, "in clear", everybody, "clear")
        self._tunnel.up("networks")
        self._from_far(WEST, "out of ESP", nobody, "esp")
        self._from_neighbour(WEST)
        self._from_internet()
        self._follow("ipsec", self._network.west, "west-ipsec", "client")
        self._from_far(WEST, "out of ESP", groups_say, "esp")

    def _vpc(self) -> None:
        self._follow("vpc", self._network.web, "web-vpc", "client")
        self._web_cable.seen()
        self._from_far(WEB, "behind the router", groups_say, "esp")
        self._add("cable of web", "behind the router", "clear", _names(self._web_cable.seen()))
        self._from_neighbour(WEB)

    def _interface(self) -> None:
        self._scope = "ipsec"
        self._tunnel.down()
        self._from_far(WEST, "in clear", everybody, "clear")
        self._network.route_through_tunnel()
        self._tunnel.up("gre")
        self._from_far(WEST, "GRE out of ESP", nobody, "esp")
        self._follow("interface", self._network.west, "west-interface", "client")
        self._from_far(WEST, "GRE out of ESP", groups_say, "esp")
        self._from_neighbour(WEST)
        self._from_internet()
        self._network.route_in_clear()
        self._from_far(WEST, "in clear", everybody, "clear")

    def _follow(self, scope: str, host: Namespace, configuration: str, ruleset: str) -> None:
        """Run the follower as root does on a host; it must succeed."""
        config, signed = FILES / f"{configuration}.yaml", FILES / f"{ruleset}.gpg"
        command = [FOLLOWER, "follower", "--config", config, "--ruleset", signed]
        done = host.run([str(word) for word in command])
        if done.returncode != 0:
            raise RuntimeError(f"the follower ended with {done.returncode}: {done.stderr}")
        sys.stdout.write(f"follower, scope {scope}: {done.stderr}")
        sys.stdout.flush()
        self._scope, self._ruleset = scope, ruleset

    def _from_far(self, destination: Place, way: str, verdict: Verdict, kind: str) -> None:
        """Try from the far VPC, and check of what kind all that was on the internet is."""
        self._cable.seen()
        sources = ((self._network.far, MEMBER), (self._network.far, STRANGER))
        self._try(sources, destination, way, verdict)
        self._add("cable of internet", way, kind, _names(self._cable.seen()))

    def _from_neighbour(self, destination: Place) -> None:
        sources = ((self._network.neighbour, NEIGHBOUR),)
        self._try(sources, destination, "own VPC, in clear", everybody)

    def _from_internet(self) -> None:
        sources = ((self._network.internet, INTERNET_WEST),)
        self._try(sources, WEST_OUTSIDE, "internet, in clear", everybody)

    def _try(
        self,
        sources: Iterable[tuple[Namespace, Place]],
        destination: Place,
        way: str,
        verdict: Verdict,
    ) -> None:
        """Try both ports from every source, over both families, and add a check for each port."""
        tries = {
            (source, port): [
                Probe(machine, own, other, port, verdict(source, port))
                for own, other in zip(source.addresses, destination.addresses, strict=True)
            ]
            for machine, source in sources
            for port in PORTS
        }
        judge = self._network.web if destination is WEB else self._network.west
        outcomes = try_all(
            self._servers, judge, [probe for both in tries.values() for probe in both]
        )
        for (source, port), both in tries.items():
            packet = f"{source.name} to {destination.name}, port {port}"
            expected = Outcome.PASSED if verdict(source, port) else Outcome.DROPPED
            v4, v6 = (outcomes[probe].value for probe in both)
            found = v4 if v4 == v6 else f"IPv4 {v4}, IPv6 {v6}"
            self._add(packet, way, expected.value, found)

    def _add(self, packet: str, way: str, expected: str, found: str) -> None:
        self.checks.append(Check(self._scope, self._ruleset, packet, way, expected, found))


def _names(kinds: Iterable[str]) -> str:
    return " ".join(sorted(set(kinds) - {"other"}))
