"""Standard streams that the caller has closed: they lead nowhere, and no file becomes them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

USE = """
import subprocess, sys
from reyes.cli import main

main(["--version"], standalone_mode=False)
assert sys.stdin.fileno() == 0 and (sys.argv[1] == "open" or sys.stdin.read() == "")
for stream in (sys.stdout, sys.stderr):
    stream.write("\\udcff said")
    stream.flush()
subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[3]], check=True)
"""
LOOK = """
import os, sys
found = [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]
open(sys.argv[1], "w").write("\\n".join(found))
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere_for_us_and_for_children(tmp_path: Path, closed: str) -> None:
    elsewhere, seen = tmp_path / "elsewhere", tmp_path / "seen"
    elsewhere.touch()
    stdin = "closed" if "<&-" in closed else "open"
    command = [sys.executable, "-c", USE, stdin, LOOK, str(seen)]
    with elsewhere.open("r+b") as file:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
            stdin=file,
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONIOENCODING": "utf-8:replace"},
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, elsewhere.read_text()
    assert seen.read_text().split("\n") == [
        os.devnull if redirection in closed.split() else str(elsewhere)
        for redirection in ("<&-", ">&-", "2>&-")
    ]


def test_a_command_line_that_nobody_hears_ends_as_any_other() -> None:
    for arguments, code in (("--help", 0), ("nonsense", 2), ("show --config /nonexistent", 78)):
        command = f"exec {sys.executable} -m reyes {arguments} <&- >&- 2>&-"
        assert subprocess.run(["sh", "-c", command], check=False, timeout=60).returncode == code


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stderr as well"])
@pytest.mark.parametrize("arguments", ["--help", "explain --help", "check --config /nonexistent"])
def test_an_answer_that_is_cut_ends_as_by_sigpipe(arguments: str, *, both: bool) -> None:
    done = unread(arguments, both=both)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, None if both else b"")


def test_what_went_wrong_ends_with_its_own_code_whoever_hears_of_it() -> None:
    assert unread("show --config /nonexistent", both=True).returncode == 78
    assert unread("nonsense", both=False).returncode == 2


def unread(arguments: str, *, both: bool) -> subprocess.CompletedProcess[bytes]:
    """Run the command with its answer, and its errors too, going to a pipe nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "reyes", *arguments.split()],
            stdout=writer,
            stderr=writer if both else subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writer)
