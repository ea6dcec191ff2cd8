"""The units under a real systemd, with their sandbox; packets tell what they did."""

import re
import socket
from collections.abc import Iterator

import pytest

from tests.bench.aws_server import AwsServer, aws_server
from tests.bench.replies import Pages, render_region
from tests.kernel.booted import Booted
from tests.kernel.followers import PATIENCE, FollowerHost, Keys, wait_for
from tests.kernel.generations import policy
from tests.kernel.judge import BACKENDS, Backend

pytestmark = pytest.mark.kernel

LEADER, FOLLOWER, BOOT = (f"reyes-{name}.service" for name in ("leader", "follower", "boot"))

WRITING = """#!/bin/sh
for directory in /etc /opt /usr /var /var/log $(cut -d" " -f2 /proc/self/mounts); do
    touch "$directory/try" && echo "written: $directory"
done
"""
"""A program that says where it can write."""


@pytest.fixture
def booted(host: FollowerHost, keys: Keys, store: AwsServer) -> Iterator[Booted]:
    with Booted(host, keys, store) as made:
        yield made


def pages(generation: int) -> dict[str, Pages]:
    """Return a generation as EC2 says it."""
    return {region.name: render_region(region) for region in policy(generation).regions}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_leader_publishes_and_a_follower_enforces(keys: Keys, backend: Backend) -> None:
    with (
        FollowerHost(keys, backend) as host,
        aws_server(host.wire.host) as store,
        Booted(host, keys, store) as booted,
    ):
        store.regions = pages(1)
        booted.systemctl("start", LEADER)
        booted.systemctl("start", FOLLOWER)
        assert host.in_force() == (1, 1)


@pytest.mark.parametrize(
    ("unit", "directory"), [(FOLLOWER, "/var/lib/reyes"), (LEADER, "/etc/reyes/keyring")]
)
def test_a_sandbox_leaves_one_directory_to_write_to(
    booted: Booted, unit: str, directory: str
) -> None:
    booted.run("chmod", "a+w", "/etc", "/opt", "/usr", "/var", "/var/log", "/run")
    booted.run("tee", "/opt/reyes/bin/reyes", text=WRITING)
    booted.systemctl("start", unit)
    own_alone = ("/dev", "/tmp", "/var/tmp")
    written = re.findall("^written: (.*)$", booted.journal(), re.MULTILINE)
    assert {path for path in written if not path.startswith(own_alone)} == {directory}


def test_a_host_that_restarts_has_its_rules_before_its_network(
    host: FollowerHost, store: AwsServer, booted: Booted
) -> None:
    host.publish_to(store, 0)
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
    host.publish_to(store, 0)
    booted.systemctl("start", FOLLOWER)
    with host.wire.host.call(socket.create_server, ("127.0.0.1", 0)) as service:
        service.settimeout(PATIENCE)
        booted.configure(probes=[f"127.0.0.1:{service.getsockname()[1]}"])
        host.publish_to(store, 1)
        booted.systemctl("start", "--no-block", FOLLOWER)
        service.accept()[0].close()
    host.wait_until_in_force(1)
    booted.systemctl("kill", "--signal=KILL", "--kill-whom=main", FOLLOWER)
    host.wait_until_in_force(0)
    assert booted.show(FOLLOWER, "Result") == "signal"
    wait_for(lambda: "the way back was taken" in booted.journal(), "the switch has said so")


def stay_instead_of_timer(booted: Booted, role: str) -> str:
    """Start the service that stays, and return its name."""
    timer, resident = f"reyes-{role}.timer", f"reyes-{role}-resident.service"
    booted.systemctl("start", timer)
    assert booted.show(timer, "NextElapseUSecRealtime")
    booted.systemctl("start", resident)
    assert booted.show(timer, "ActiveState") == "inactive"
    return resident


def test_a_follower_that_stays_passes_anew_when_it_is_reloaded(
    host: FollowerHost, store: AwsServer, booted: Booted
) -> None:
    host.publish_to(store, 0)
    resident = stay_instead_of_timer(booted, "follower")
    host.wait_until_in_force(0)
    host.publish_to(store, 1)
    booted.systemctl("reload", resident)
    host.wait_until_in_force(1)
    booted.systemctl("stop", resident)
    assert booted.show(resident, "Result") == "success"
    assert host.in_force() == (1, 1)


def test_a_leader_that_stays_publishes_anew_when_it_is_reloaded(
    store: AwsServer, booted: Booted
) -> None:
    store.regions = pages(0)
    resident = stay_instead_of_timer(booted, "leader")
    wait_for(lambda: store.blob is not None, "the first pass publishes")
    first, store.regions = store.blob, pages(1)
    booted.systemctl("reload", resident)
    wait_for(lambda: store.blob != first, "a reload publishes what has changed")
    booted.systemctl("stop", resident)
    assert booted.show(resident, "Result") == "success"
