"""The demo, act by act."""

import textwrap
import time
from subprocess import CompletedProcess

import click

from reyes.demo.evidence import deciding_rule, rules_in_force
from reyes.demo.fabric import SERVICES_ADDRESS, Fabric
from reyes.demo.fleet import Fleet, succeeded
from reyes.demo.isolation import enter
from reyes.demo.probe import Outcome
from reyes.demo.simulation import PORT, Simulation
from reyes.demo.story import (
    AFTER_LEAVING,
    GROUPS,
    LAPTOPS,
    LEAVER,
    LEFT_GROUP,
    OPEN_GROUP,
    PROBES,
    SITES,
    STATIONS,
    Permission,
    Probe,
    Station,
)
from reyes.demo.table import Row, mark, show
from reyes.errors import ReplayError, ReyesError, SignatureError
from reyes.net import Service, service_text

_VICTIM = "eu-db"


def run(*, verbose: bool) -> bool:
    """Play the demo in this process's own world; tell whether all was as the groups say."""
    started = time.monotonic()
    _introduce()
    enter(f"http://{SERVICES_ADDRESS}:{PORT}")
    with Fabric(STATIONS) as fabric:
        fabric.listen(PROBES)
        simulation = fabric.router.call(Simulation, SERVICES_ADDRESS)
        good = _Play(fabric, simulation, verbose=verbose).all_acts()
    seconds = time.monotonic() - started
    if good:
        click.secho(f"\nEverything went as the groups say, in {seconds:.0f} s.", fg="green")
    else:
        click.secho("\nNot everything went as the groups say: see BAD above.", fg="red")
    click.echo("Nothing is left behind: namespaces, rules and files vanish with this process.")
    return good


class _Play:
    """The acts share the stage: network, simulation, leader and followers."""

    def __init__(self, fabric: Fabric, simulation: Simulation, *, verbose: bool) -> None:
        self._fabric = fabric
        self._simulation = simulation
        self._verbose = verbose
        self._fleet = Fleet(fabric, simulation)
        self._in_aws = fabric.router.call

    def all_acts(self) -> bool:
        """Play all acts, whatever became of the earlier ones; tell whether all went well."""
        before = self._without_reyes()
        now = self._with_reyes(before)
        old = self._in_aws(self._simulation.published)
        later = self._one_leaves(now)
        rows = [*now.values(), *later]
        refused = self._attacked(old)
        open_before = all(outcome is Outcome.REACHED for outcome in before.values())
        return open_before and all(row.as_expected for row in rows) and refused

    def _without_reyes(self) -> dict[Probe, Outcome]:
        _act("Without Reyes")
        outcomes = {probe: self._fabric.send(probe)[0] for probe in PROBES}
        reached = sum(outcome is Outcome.REACHED for outcome in outcomes.values())
        denied = sum(probe.allowed == "no" for probe in PROBES)
        _say(
            f"{OPEN_GROUP} opens every host to all that is behind the VPN, for AWS cannot tell "
            f"who is who there. {reached} of {len(PROBES)} probes got through, {denied} of which "
            "no other group allows."
        )
        return outcomes

    def _with_reyes(self, before: dict[Probe, Outcome]) -> dict[Probe, Row]:
        _act("The same probes with Reyes")
        self._publish_and_follow()
        rows = {probe: self._send(probe, before[probe]) for probe in PROBES}
        show(list(rows.values()), "without")
        return rows

    def _one_leaves(self, now: dict[Probe, Row]) -> list[Row]:
        _act(f"{LEAVER} leaves the group {LEFT_GROUP}")
        self._in_aws(self._simulation.leave_group, LEAVER, LEFT_GROUP)
        _, _, changes = self._publish_and_follow().partition("changes since ")
        for change in changes.splitlines()[1:]:
            click.secho(f"      {change}", dim=True)
        click.echo()
        earlier = {_path(probe): row.outcome for probe, row in now.items()}
        rows = [self._send(probe, earlier[_path(probe)]) for probe in AFTER_LEAVING]
        show(rows, "earlier")
        return rows

    def _attacked(self, old: bytes) -> bool:
        _act("Somebody has stolen the bucket's keys, but not the signing key")
        good = bytearray(self._in_aws(self._simulation.published))
        good[len(good) // 2] ^= 1
        tampered = self._refuses("one bit of the ruleset is changed", bytes(good), SignatureError)
        replayed = self._refuses(
            f"the ruleset from before {LEAVER} left is put back", old, ReplayError
        )
        return tampered and replayed

    def _refuses(self, what: str, blob: bytes, error: type[ReyesError]) -> bool:
        """Serve a bad object; tell whether the follower refuses and its rules stand."""
        victim = self._fabric.stations[_VICTIM]
        rules = victim.call(rules_in_force)
        self._in_aws(self._simulation.replace_published, blob)
        done = self._fleet.follow([_VICTIM])[_VICTIM]
        self._reveal(done)
        stand = victim.call(rules_in_force) == rules
        row = self._send(AFTER_LEAVING[0], Outcome.NO_ANSWER)
        good = done.returncode == error.exit_code and stand and row.as_expected
        reason = next((line for line in done.stderr.splitlines() if line.startswith("reyes:")), "")
        click.echo(f"  {mark(good=good)}{what}")
        _detail(f"the follower on {_VICTIM} ends with exit code {done.returncode}")
        _detail(f"it says: {reason.removeprefix('reyes: ')}")
        _detail(
            f"its rules {'stand as they were' if stand else 'CHANGED'};"
            f" {row.probe.source} to {row.probe.destination} {service_text(row.probe.service)}:"
            f" {row.outcome.value}"
        )
        return good

    def _publish_and_follow(self) -> str:
        """Run the leader and all followers; return what the leader said.

        Raises:
            ReyesError: one of them failed.
        """
        started = time.monotonic()
        led = self._fleet.lead()
        self._reveal(led)
        told = succeeded(led)
        published = time.monotonic()
        for done in self._fleet.follow(self._simulation.instances).values():
            self._reveal(done)
            succeeded(done)
        _say(
            f"The leader read EC2 in {len(SITES)} regions and published a signed ruleset "
            f"({published - started:.1f} s); {len(self._simulation.instances)} followers "
            "fetched it through their own networks, verified it and put it in force "
            f"({time.monotonic() - published:.1f} s)."
        )
        click.echo()
        return told

    def _send(self, probe: Probe, before: Outcome) -> Row:
        outcome, rules = self._fabric.send(probe)
        decided_by = deciding_rule(rules, self._simulation.names)
        return Row(probe=probe, before=before, outcome=outcome, decided_by=decided_by)

    def _reveal(self, done: CompletedProcess[str]) -> None:
        if self._verbose:
            click.secho(f"  $ {' '.join(done.args)}", dim=True)
            for line in (done.stdout + done.stderr).splitlines():
                click.secho(f"    {line}", dim=True)


def _introduce() -> None:
    _say(
        "Two VPCs in two regions, joined by a VPN that AWS cannot see into. EC2 and S3 are "
        "simulated; the hosts are network namespaces, their firewall is the kernel's, and every "
        "packet is real. Nothing outside this process is touched."
    )
    click.echo()
    for site in SITES:
        hosts = ", ".join(_place(host) for host in STATIONS if host.site == site)
        click.echo(f"  {f'{site.region} {site.cidr}':<22}{hosts}")
    strangers = ", ".join(_place(host) for host in STATIONS if not host.site)
    click.echo(f"  {'elsewhere':<22}{strangers}")
    click.echo(
        "\n  Both VPCs have the same groups, and a group's name means its members in both:\n"
    )
    for group, permissions in GROUPS.items():
        click.echo(f"  {group:<15} lets in " + "; ".join(map(_permission_text, permissions)))
    click.echo(f"  {OPEN_GROUP:<15} lets in all from behind the VPN: the other VPC and {LAPTOPS}")


def _place(station: Station) -> str:
    return f"{station.name} {station.address}"


def _permission_text(permission: Permission) -> str:
    return f"{service_text(permission.service)} from {permission.group or permission.cidr}"


def _path(probe: Probe) -> tuple[str, str, Service]:
    return probe.source, probe.destination, probe.service


def _act(title: str) -> None:
    click.secho(f"\n{title}\n", bold=True)


def _say(text: str) -> None:
    click.echo(textwrap.fill(text, 80, initial_indent="  ", subsequent_indent="  "))


def _detail(text: str) -> None:
    click.secho(
        textwrap.fill(text, 80, initial_indent=" " * 6, subsequent_indent=" " * 8), dim=True
    )
