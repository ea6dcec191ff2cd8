"""The dead man's switch, with processes that fail, die and hang."""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from reyes.adapters import deadman

SCRIPT = r"""
import os, pathlib, signal, subprocess, sys, time
from reyes.adapters.deadman import armed

marks = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGALRM, lambda *_: None)  # whatever was there before

def go_back():
    with marks.open("a") as file:
        file.write("back\n")
    {fate}

with armed(go_back, {seconds}):
    {block}
with marks.open("a") as file:
    file.write("on\n")
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def run(
    marks: Path, block: str, fate: str = "pass", seconds: float = 60
) -> "subprocess.CompletedProcess[str]":
    """Run a block under a switch; `fate` is what befalls the way back."""
    script = SCRIPT.format(block=block, fate=fate, seconds=seconds)
    return subprocess.run(
        [sys.executable, "-c", script, str(marks)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    return tmp_path / "marks"


def told(marks: Path) -> list[str]:
    return marks.read_text().split() if marks.exists() else []


def test_a_block_that_ends_well_disarms(marks: Path) -> None:
    assert run(marks, "pass").returncode == 0
    assert told(marks) == ["on"]


def test_a_block_that_fails_is_taken_back_before_it_is_left(marks: Path) -> None:
    leave = "import atexit; atexit.register(lambda: marks.open('a').write('left'))"
    begin = time.monotonic()
    done = run(marks, f"{leave}; raise ValueError", fate="time.sleep(0.3)")
    assert time.monotonic() - begin < deadman._LAST_COMMAND_SECONDS  # no command is at work
    assert done.returncode == 1
    assert "ValueError" in done.stderr
    assert "did not end" not in done.stderr
    assert told(marks) == ["back", "back", "left"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_dies_is_taken_back(marks: Path, number: int) -> None:
    done = run(marks, f"os.kill(os.getpid(), {int(number)})")
    assert done.returncode == -number
    assert "did not end its commit: the way back was taken" in done.stderr
    assert set(told(marks)) == {"back"}


def test_a_process_that_hangs_is_ended_first(marks: Path) -> None:
    done = run(marks, "os.kill(os.getpid(), signal.SIGSTOP)", seconds=0.2)
    assert done.returncode == -signal.SIGKILL
    assert "hung" in done.stderr
    assert set(told(marks)) == {"back"}


def test_the_way_back_is_taken_again_behind_the_last_command(marks: Path) -> None:
    late = f'sleep 0.5; echo late >>"{marks}"'
    start = f"subprocess.Popen(['sh', '-c', '''{late}'''], close_fds=False)"
    run(marks, f"{start}; {KILL}")
    assert told(marks) == ["back", "late", "back"]


def test_a_way_back_that_fails_is_taken_again(marks: Path) -> None:
    done = run(marks, KILL, fate="raise OSError")
    assert told(marks) == ["back", "back"]
    assert done.stderr.count("the way back failed") == 2


def test_a_switch_that_somebody_killed_costs_nothing_but_itself(marks: Path) -> None:
    only_child = "pathlib.Path(f'/proc/self/task/{os.getpid()}/children').read_text()"
    kill = f"switch = int({only_child}); os.kill(switch, signal.SIGKILL)"
    until_it_is_dead = "os.waitid(os.P_PID, switch, os.WEXITED | os.WNOWAIT)"
    done = run(marks, f"{kill}; {until_it_is_dead}")
    assert done.returncode == 0, done.stderr
    assert told(marks) == ["on"]


@pytest.mark.parametrize(
    ("block", "fate"),
    [(KILL, "pass"), (KILL, "raise OSError"), ("os.kill(os.getpid(), signal.SIGSTOP)", "pass")],
)
def test_a_terminal_that_takes_nothing_does_not_hinder_the_switch(
    marks: Path, block: str, fate: str
) -> None:
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with suppress(BlockingIOError):
        while True:
            os.write(full, b"-" * 4096)
    os.set_blocking(full, True)
    ended, held = os.pipe()
    script = SCRIPT.format(block=block, fate=fate, seconds=0.2)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(marks)], stderr=full, pass_fds=[held]
    ) as process:
        os.close(full)
        os.close(held)
        try:
            assert process.wait(30) == -signal.SIGKILL
            # As with the lock, the switch holds it until it ends.
            assert select.select([ended], [], [], 30)[0]
        finally:
            process.kill()
            os.close(unread)
            os.close(ended)
    assert told(marks) == ["back", "back"]


def test_words_that_nobody_takes_keep_nobody_from_a_commit(marks: Path) -> None:
    full = "import sys; sys.stdout = open('/dev/full', 'w'); print('words')"
    script = full + SCRIPT.format(block="pass", fate="pass", seconds=60)
    subprocess.run([sys.executable, "-c", script, str(marks)], check=False)
    assert told(marks) == ["on"]


def test_a_process_that_is_not_its_parent_any_more_is_not_ended() -> None:
    # The number may be another's by then. No test could wait until numbers come again.
    with subprocess.Popen(["sleep", "60"]) as other:
        deadman._kill(other.pid, 0)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.5)
        other.kill()


def test_signals_for_the_group_do_not_end_the_switch(marks: Path) -> None:
    script = SCRIPT.format(block="time.sleep(60)", fate="pass", seconds=60)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(marks)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        end = time.monotonic() + 30
        while len(children(process.pid)) == 0:
            assert time.monotonic() < end
            time.sleep(0.01)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            for child in children(process.pid):
                os.kill(child, number)
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=30)
    assert set(told(marks)) == {"back"}


def children(pid: int) -> list[int]:
    """Children that have a session of their own already."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if os.getsid(int(child)) == int(child)]
