"""What a pass leaves behind on disk, and that nothing of it makes a pass fail."""

import errno
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from reyes.adapters.metrics import read_metrics, write_metrics
from reyes.adapters.state import StateDirectory
from reyes.cli.recording import record_outcome, recording
from reyes.config import FollowerConfig
from reyes.cutover import BlamedError, UnhealthyError
from reyes.errors import ConfigError, KernelError, SignatureError
from reyes.metrics import follower_metrics
from reyes.net import Family
from reyes.netfilter.counters import Packets
from reyes.state import State
from reyes.status import Status, accepted_ruleset
from tests.machine import Machine
from tests.statuses import GOOD


@pytest.fixture
def memory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "state")


@pytest.fixture
def restrictive() -> Iterator[None]:
    """The umask of the packaged units."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def config(memory_of: Path, **more: Any) -> FollowerConfig:
    return FollowerConfig(state_directory=str(memory_of / "state"), **more)


def left(memory: StateDirectory) -> Status:
    status = memory.status()
    assert status is not None
    return status


@pytest.mark.usefixtures("restrictive")
def test_everybody_may_read_the_status_and_nothing_else(
    memory: StateDirectory, tmp_path: Path
) -> None:
    with memory.lock():
        memory.save(State())
        record_outcome(config(tmp_path), memory, "unchanged")
    assert {
        path.name: path.stat().st_mode & 0o777
        for path in [tmp_path / "state", *tmp_path.glob("state/*")]
    } == {"state": 0o755, "lock": 0o600, "state.json": 0o600, "status.json": 0o644}


def test_a_pass_that_succeeds_tells_what_it_knew(memory: StateDirectory, tmp_path: Path) -> None:
    prepared = Machine().prepare()
    with recording(config(tmp_path), memory) as record:
        host = prepared.policy.host
        record.instance, record.region = host.instance_id, host.region
        record.ruleset = accepted_ruleset(prepared.verified)
        record.note(prepared)
        record.outcome = "applied"
    status = left(memory)
    assert (status.run.outcome, status.run.exit_code) == ("applied", 0)
    assert (status.instance, status.region) == ("i-0000000b", "us-west-2")
    assert status.ruleset is not None
    assert status.ruleset.serial == prepared.verified.ruleset.header.serial
    assert status.applied is not None
    assert status.applied.members == 3
    assert status.applied.seconds <= status.run.seconds
    assert status.omitted == prepared.policy.omitted


def test_a_refusal_is_recorded_and_passed_on(memory: StateDirectory, tmp_path: Path) -> None:
    with (
        pytest.raises(SignatureError),
        recording(config(tmp_path), memory),
    ):
        raise SignatureError("refused\n> 1 what a command was fed")
    status = left(memory)
    assert (status.run.exit_code, status.run.message) == (21, "refused")
    assert status.counters.refused == {"signature": 1}
    assert status.last_success is None


def test_a_bug_is_recorded_too(memory: StateDirectory, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), recording(config(tmp_path), memory):
        raise ZeroDivisionError("division by zero")
    assert (left(memory).run.exit_code, left(memory).run.message) == (1, "division by zero")


def test_what_the_system_refuses_has_the_exit_code_of_the_command(
    memory: StateDirectory, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No space"), recording(config(tmp_path), memory):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert left(memory).run.exit_code == 78


def test_a_person_who_says_no_leaves_nothing_behind(
    memory: StateDirectory, tmp_path: Path
) -> None:
    with pytest.raises(click.Abort), recording(config(tmp_path), memory):
        raise click.Abort
    assert memory.status() is None


@pytest.mark.parametrize(
    ("error", "rolled_back", "repaired"),
    [
        (UnhealthyError("trouble"), 1, 0),
        (BlamedError(repaired=False), 0, 0),
        (BlamedError(repaired=True), 0, 1),
    ],
)
def test_only_commits_that_were_taken_back_count_as_rolled_back(
    memory: StateDirectory,
    tmp_path: Path,
    error: UnhealthyError,
    rolled_back: int,
    repaired: int,
) -> None:
    with pytest.raises(UnhealthyError), recording(config(tmp_path), memory):
        raise error
    assert left(memory).counters.rolled_back == rolled_back
    assert left(memory).counters.repaired == repaired
    assert left(memory).counters.refused == {"kernel": 1}


def test_a_kernel_that_refuses_rolls_nothing_back(memory: StateDirectory, tmp_path: Path) -> None:
    with pytest.raises(KernelError), recording(config(tmp_path), memory):
        raise KernelError("refused")
    assert left(memory).counters.rolled_back == 0


def test_a_status_that_cannot_be_written_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("reyes"), "propagate", True)
    (tmp_path / "state").write_text("a file where the directory should be")
    memory = StateDirectory(tmp_path / "state")
    metrics = tmp_path / "reyes.prom"
    record_outcome(config(tmp_path, metrics_file=str(metrics)), memory, "unchanged")
    assert "the status of this pass is not written: " in caplog.text
    assert "reyes_last_exit_code 0.0" in metrics.read_text()


def test_what_is_no_pass_takes_as_long_as_it_took(memory: StateDirectory, tmp_path: Path) -> None:
    record_outcome(config(tmp_path), memory, "removed", time.monotonic() - 60)
    status = memory.status()
    assert status
    assert 60 <= status.run.seconds < 120


def test_metrics_go_on_where_no_status_can_be_written(
    memory: StateDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = tmp_path / "reyes.prom"
    settings = config(tmp_path, metrics_file=str(metrics))
    record_outcome(settings, memory, "repaired")

    def full(_: Status) -> None:
        raise ConfigError("cannot write status.json: No space left on device")

    monkeypatch.setattr(memory, "save_status", full)
    record_outcome(settings, memory, "unchanged")
    assert "reyes_repaired_total 1.0" in metrics.read_text()


def test_metrics_that_cannot_be_written_are_logged(
    memory: StateDirectory,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("reyes"), "propagate", True)
    nowhere = str(tmp_path / "nowhere" / "reyes.prom")
    record_outcome(config(tmp_path, metrics_file=nowhere), memory, "unchanged")
    assert left(memory).run.outcome == "unchanged"
    assert f"the metrics of this pass are not written: cannot write {nowhere}" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}', "\ud800"])
def test_a_damaged_status_is_none(memory: StateDirectory, tmp_path: Path, text: str) -> None:
    record_outcome(config(tmp_path), memory, "unchanged")
    (tmp_path / "state/status.json").write_bytes(text.encode(errors="surrogatepass"))
    assert memory.status() is None
    record_outcome(config(tmp_path), memory, "unchanged")
    assert left(memory).run.outcome == "unchanged"


def test_a_corrupt_state_stays_where_it_is_in_a_read_only_directory(
    memory: StateDirectory, tmp_path: Path
) -> None:
    with memory.lock():
        memory.save(State())
    state = tmp_path / "state/state.json"
    state.write_text("{")
    with pytest.raises(ConfigError, match="corrupt"):
        memory.as_read_only().load()
    record_outcome(config(tmp_path), memory, "disabled")
    assert state.read_text() == "{"


@pytest.mark.usefixtures("restrictive")
def test_metrics_are_for_all_to_read_and_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "reyes.prom"
    metrics = follower_metrics(GOOD, {Family.V4: Packets(3, 4)})
    write_metrics(path, metrics)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    assert read_metrics(path) == metrics
    text = path.read_text()
    assert 'reyes_packets_total{family="ipv4",verdict="denied"} 4.0' in text
    assert "# TYPE reyes_refused_total counter" in text


@pytest.mark.parametrize("blob", [None, b"reyes_rules {", b"\xff"])
def test_an_unreadable_metrics_file_counts_as_none(tmp_path: Path, blob: bytes | None) -> None:
    path = tmp_path / "reyes.prom"
    if blob is not None:
        path.write_bytes(blob)
    assert read_metrics(path) == ()


def test_prometheus_is_imported_only_where_metrics_are_wanted(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from reyes.adapters.state import StateDirectory\n"
        "from reyes.cli.recording import record_outcome\n"
        "from reyes.config import FollowerConfig\n"
        f"directory = {json.dumps(str(tmp_path / 'state'))}\n"
        "config = FollowerConfig(state_directory=directory)\n"
        "record_outcome(config, StateDirectory(Path(directory)), 'unchanged')\n"
        "sys.exit('prometheus_client' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
