"""`reyes demo` as a newcomer runs it, and as an impatient one ends it."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from reyes.demo.probe import Outcome
from reyes.demo.story import Probe, tcp
from reyes.demo.table import Row
from reyes.errors import ConfigError

pytestmark = pytest.mark.kernel

DEMO = [sys.executable, "-m", "reyes", "demo"]
# Root without the rights to make namespaces is what an ordinary user is.
ORDINARY = (
    ["setpriv", "--bounding-set=-sys_admin,-net_admin,-net_raw", "--inh-caps=-all"]
    if os.geteuid() == 0
    else []
)


@pytest.fixture
def marked() -> Iterator[dict[str, str]]:
    """An environment by which every process of one demo is known; none may remain."""
    mark = f"DEMO_MARK={uuid.uuid4()}"
    yield {**os.environ, "DEMO_MARK": mark.partition("=")[2]}
    deadline = time.monotonic() + 10
    while left := processes_with(mark):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)
    assert not Path("/run/reyes-demo").exists()


def processes_with(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def test_an_ordinary_user_sees_every_packet_meet_its_fate(marked: dict[str, str]) -> None:
    done = subprocess.run(
        [*ORDINARY, *DEMO], env=marked, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "BAD" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for row, rule in (
        ("us-app eu-db tcp 5432 reached reached", "db rule 2: tcp 5432 from app"),
        ("us-web eu-db tcp 5432 reached no answer", "denied: no rule of eu-db allows it"),
        ("us-bastion eu-app icmp 8 reached reached", "app rule 1: icmp 8 from bastion"),
        ("us-app eu-metrics udp 8125 reached reached", "metrics rule 1: udp 8125 from app"),
        ("laptop us-web tcp 443 reached reached", "web rule 1: tcp 443 from 0.0.0.0/0"),
        ("eu-app eu-db tcp 5432 reached reached", "not judged: own VPC eu 10.2.0.0/16"),
        ("office us-bastion tcp 22 reached reached", "none: not from the tunnel, not judged"),
        ("us-app eu-db tcp 5432 reached no answer", "denied: no rule of eu-db allows it"),
    ):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"ok {row}"))
        assert lines[at + 1].endswith(rule)
    assert "- member 10.1.0.20" in lines
    assert "the follower on eu-db ends with exit code 21" in lines
    assert "the follower on eu-db ends with exit code 22" in lines


@pytest.mark.parametrize(
    ("way", "user"),
    [
        (signal.SIGINT, []),
        (signal.SIGTERM, []),
        (signal.SIGKILL, []),
        (signal.SIGKILL, ORDINARY),
    ],
)
def test_nothing_is_left_however_it_ends(
    way: signal.Signals, user: list[str], marked: dict[str, str]
) -> None:
    with subprocess.Popen(
        [*user, *DEMO],
        env=marked,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        assert any("The same probes with Reyes" in line for line in demo.stdout)
        assert processes_with(f"DEMO_MARK={marked['DEMO_MARK']}")
        if way is signal.SIGINT:
            os.killpg(demo.pid, way)  # as a terminal does on Ctrl-C
        else:
            demo.send_signal(way)
        assert demo.wait(10) in (130, -way)


def test_without_moto_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from reyes.demo import isolation

    monkeypatch.setattr(isolation, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        isolation.check_tools()
    assert caught.value.hint == "pip install 'reyes[demo]'"


def test_missing_tools_are_named_by_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    from reyes.demo import isolation

    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr(shutil, "which", lambda tool: None if "ip" in tool else tool)
    with pytest.raises(ConfigError, match="iproute2 ipset iptables"):
        isolation.check_tools()


def test_a_system_without_namespaces_is_told_what_to_change() -> None:
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces"
    powerless = 'setpriv --bounding-set=-sys_admin --inh-caps=-all "$@"'
    done = subprocess.run(
        ["unshare", "--map-root-user", "sh", "-c", f"{forbid} && {powerless}", "sh", *DEMO],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ConfigError.exit_code
    assert "gives root no namespaces of your own: unshare: " in done.stderr
    assert "hint: run it as root, or let users make them" in done.stderr


def test_the_inner_half_refuses_to_run_in_the_real_world() -> None:
    done = subprocess.run([*DEMO, "--isolated"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "would cover the real /run" in done.stderr


@pytest.mark.parametrize(
    ("allowed", "outcome", "good"),
    [
        ("yes", Outcome.REACHED, True),
        ("yes", Outcome.NO_ANSWER, False),
        ("yes", Outcome.REFUSED, False),
        ("no", Outcome.REACHED, False),
        ("no", Outcome.NO_ANSWER, True),
        ("no", Outcome.REFUSED, True),
    ],
)
def test_a_row_is_good_only_if_the_packet_met_the_fate_that_the_groups_foresee(
    allowed: Literal["yes", "no"], outcome: Outcome, good: bool
) -> None:
    probe = Probe("us-app", "eu-db", tcp(5432), allowed, "a reason")
    row = Row(probe=probe, before=Outcome.REACHED, outcome=outcome, decided_by="a rule")
    assert row.as_expected is good
