"""A resident follower for some hundred passes; `make soak` goes on for 10,000."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.generator import QUIET_HOST, SMALL
from tests.bench.hosts import Bench, follower_host
from tests.soak import CPU_MILLISECONDS, SETS, soak, typical, write_blobs

pytestmark = pytest.mark.kernel

GENEROUS = 4
"""Other tests run at the same time, and share caches and cores with what is measured."""


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="reyes-") as path:
        yield Bench(quick=True, directory=Path(path))
        agent = ["gpgconf", "--homedir", f"{path}/keys/leader", "--kill", "all"]
        subprocess.run(agent, check=True)


def test_a_pass_with_nothing_new_costs_little_and_memory_stays_flat(bench: Bench) -> None:
    blob = bench.sign(typical(SMALL)).blob
    with follower_host(bench, "idle", QUIET_HOST, blob) as host:
        cost = soak(host, (100, 300))
        sets = host.namespace.run(["ipset", "list", "-name"]).stdout.split()
    assert len(sets) == SETS
    assert cost.cpu < GENEROUS * CPU_MILLISECONDS
    assert cost.growth < 1024


def test_memory_stays_flat_when_every_pass_brings_a_new_ruleset(bench: Bench) -> None:
    blob = bench.sign(typical(SMALL)).blob
    with follower_host(bench, "changes", QUIET_HOST, blob) as host:
        cost = soak(host, (8, 16), write_blobs(bench, SMALL, 16))
    assert cost.growth < GENEROUS * 1024
