"""The units under a real systemd, with their sandbox; packets tell what they did."""

import re
import socket
from collections.abc import Iterator

import pytest

from tests.bench.aws_server import AwsServer, aws_server
from tests.bench.replies import render_region
from tests.kernel.booted import Booted
from tests.kernel.followers import FollowerHost, Keys, wait_for
from tests.kernel.generations import policy
from tests.kernel.judge import BACKENDS, Backend

pytestmark = pytest.mark.kernel

LEADER, FOLLOWER, RESIDENT, BOOT = (
    f"reyes-{name}.service" for name in ("leader", "follower", "follower-resident", "boot")
)
TIMER = "reyes-follower.timer"

WRITING = """#!/bin/sh
for directory in /etc /opt /usr /var /var/log $(cut -d" " -f2 /proc/self/mounts); do
    touch "$directory/try" && echo "written: $directory"
done
"""
"""A program that says where it can write."""


@pytest.fixture
def store(host: FollowerHost) -> Iterator[AwsServer]:
    with aws_server(host.wire.host) as server:
        yield server


@pytest.fixture
def booted(host: FollowerHost, keys: Keys, store: AwsServer) -> Iterator[Booted]:
    with Booted(host, keys, store) as made:
        yield made


def publish(host: FollowerHost, store: AwsServer, generation: int) -> None:
    host.publish(generation)
    store.blob = (host.directory / "ruleset.gpg").read_bytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_leader_publishes_and_a_follower_enforces(keys: Keys, backend: Backend) -> None:
    with (
        FollowerHost(keys, backend) as host,
        aws_server(host.wire.host) as store,
        Booted(host, keys, store) as booted,
    ):
        store.regions = {region.name: render_region(region) for region in policy(1).regions}
        booted.run("chown", "--recursive", "reyes:", "/etc/reyes/keyring")
        booted.systemctl("start", LEADER)
        booted.systemctl("start", FOLLOWER)
        assert host.in_force() == (1, 1)


@pytest.mark.parametrize(
    ("unit", "directory"), [(FOLLOWER, "/var/lib/reyes"), (LEADER, "/etc/reyes/keyring")]
)
def test_a_sandbox_leaves_one_directory_to_write_to(
    booted: Booted, unit: str, directory: str
) -> None:
    booted.run("chown", "--recursive", "reyes:", "/etc/reyes/keyring")
    booted.run("tee", "/opt/reyes/bin/reyes", text=WRITING)
    booted.systemctl("start", unit)
    own_alone = ("/dev", "/tmp", "/var/tmp")
    written = re.findall("^written: (.*)$", booted.journal(), re.MULTILINE)
    assert {path for path in written if not path.startswith(own_alone)} == {directory}


def test_a_host_that_restarts_has_its_rules_before_its_network(
    host: FollowerHost, store: AwsServer, booted: Booted
) -> None:
    publish(host, store, 0)
    booted.systemctl("enable", BOOT)
    booted.systemctl("start", FOLLOWER)
    store.blob = None
    booted.reboot()
    assert host.in_force() == (0, 0)
    when = "ActiveEnterTimestampMonotonic"
    before, network = (int(booted.show(unit, when)) for unit in (BOOT, "network-pre.target"))
    assert 0 < before < network


def test_the_switch_outlives_a_follower_that_is_killed(
    host: FollowerHost, store: AwsServer, booted: Booted
) -> None:
    publish(host, store, 0)
    booted.systemctl("start", FOLLOWER)
    with host.wire.host.call(socket.create_server, ("127.0.0.1", 0)) as service:
        booted.configure(probes=[f"127.0.0.1:{service.getsockname()[1]}"])
        publish(host, store, 1)
        booted.systemctl("start", "--no-block", FOLLOWER)
        service.accept()[0].close()
    host.wait_until_in_force(1)
    booted.systemctl("kill", "--signal=KILL", "--kill-whom=main", FOLLOWER)
    host.wait_until_in_force(0)
    assert booted.show(FOLLOWER, "Result") == "signal"
    wait_for(lambda: "the way back was taken" in booted.journal(), "the switch has said so")


def test_a_follower_that_stays_takes_the_place_of_the_timer(
    host: FollowerHost, store: AwsServer, booted: Booted
) -> None:
    publish(host, store, 0)
    booted.systemctl("start", TIMER)
    assert booted.show(TIMER, "NextElapseUSecRealtime") != ""
    booted.systemctl("start", RESIDENT)
    assert booted.show(TIMER, "ActiveState") == "inactive"
    host.wait_until_in_force(0)
    publish(host, store, 1)
    booted.systemctl("reload", RESIDENT)
    host.wait_until_in_force(1)
    booted.systemctl("stop", RESIDENT)
    assert booted.show(RESIDENT, "Result") == "success"
    assert host.in_force() == (1, 1)
