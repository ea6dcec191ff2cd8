"""The real commands, each a process of its own with a configuration file, where it would run."""

import re
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from subprocess import CompletedProcess

import yaml

from reyes.demo.fabric import Fabric
from reyes.demo.isolation import FILES, reyes_command
from reyes.demo.namespaces import run_command
from reyes.demo.simulation import BUCKET, KEY, STORE_REGION, Simulation
from reyes.demo.story import INSTANCES, OPEN_GROUP, SITES
from reyes.errors import ReyesError

_KEYS = FILES / "keys"


class Fleet:
    """A leader, and a follower on every instance."""

    def __init__(self, fabric: Fabric, simulation: Simulation) -> None:
        self._fabric = fabric
        made = fabric.router.run(reyes_command("keygen", "--directory", str(_KEYS)))
        found = re.search(r"\b[0-9A-F]{40}\b", succeeded(made))
        if found is None:
            raise ReyesError(f"reyes keygen printed no fingerprint: {made.stdout}")
        self.fingerprint = found[0]
        self._write_leader(simulation)
        for station in INSTANCES:
            if station.site is not None:
                instance = simulation.instances[station.name]
                self._write_follower(station.name, instance, station.site.region)

    def lead(self) -> CompletedProcess[str]:
        """Run the leader once."""
        argv = reyes_command("leader", "--config", str(_config("leader")))
        return self._fabric.router.run(argv)

    def follow(self, stations: Iterable[str]) -> dict[str, CompletedProcess[str]]:
        """Run the followers of these stations once, all at the same time."""
        running: dict[str, Future[CompletedProcess[str]]] = {}
        for name in stations:
            argv = reyes_command("follower", "--config", str(_config(name)))
            running[name] = self._fabric.stations[name].submit(run_command, argv)
        return {name: future.result() for name, future in running.items()}

    def _write_leader(self, simulation: Simulation) -> None:
        leader = {
            "sources": [
                {"region": site.region, "vpcs": [simulation.vpcs[site]]} for site in SITES
            ],
            "excluded_group_names": [OPEN_GROUP],
            "group_matching": "name",
        }
        self._write("leader", "leader", {"leader": leader})

    def _write_follower(self, name: str, instance: str, region: str) -> None:
        follower = {
            "traffic": "vpc",
            "instance_id": instance,
            "region": region,
            "state_directory": str(_config(name).parent / "state"),
            "disable_file": str(_config(name).parent / "disabled"),
        }
        self._write(name, "follower", {"follower": follower})

    def _write(self, name: str, keyring: str, section: dict[str, object]) -> None:
        configuration = {
            "environment": "demo",
            "s3": {"bucket": BUCKET, "key": KEY, "region": STORE_REGION},
            "signing": {
                "keyring_directory": str(_KEYS / keyring),
                "signing_key": self.fingerprint,
            },
            **section,
        }
        path = _config(name)
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(configuration), encoding="utf-8")


def succeeded(done: CompletedProcess[str]) -> str:
    """Return what a command printed; ReyesError if it failed."""
    if done.returncode != 0:
        raise ReyesError(
            f"{' '.join(done.args[1:])} ended with exit code {done.returncode}",
            f"it said: {done.stdout}{done.stderr}",
        )
    return done.stdout


def _config(name: str) -> Path:
    return FILES / name / "config.yaml"
