"""The kernel's log as it is read: a record at a time, else from the journal."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reyes.adapters import kernel_log
from reyes.adapters.kernel_log import kernel_lines
from reyes.errors import ConfigError

RECORD = b"4,112,5320000,-;reyes-drop: IN=eth0 OUT= \n SUBSYSTEM=net\n DEVICE=n2\n"


class Pipe:
    """Stands in for the kernel's log: it is empty in between, and never ends."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._ends = os.open(path, os.O_RDWR)

    def say(self, record: bytes) -> None:
        os.write(self._ends, record)

    def close(self) -> None:
        os.close(self._ends)


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    path = tmp_path / "kmsg"
    made = Pipe(path)
    monkeypatch.setattr(kernel_log, "_KERNEL_LOG", str(path))
    yield made
    made.close()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journalctl of our own, and no kernel log."""
    monkeypatch.setattr(kernel_log, "_KERNEL_LOG", str(tmp_path / "missing"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "journalctl"
    path.touch(mode=0o755)
    return path


def test_a_record_becomes_a_line_with_its_time(pipe: Pipe) -> None:
    pipe.say(RECORD)
    (line,) = kernel_lines(follow=False)
    moment, _, text = line.partition(" ")
    assert text == "kernel: reyes-drop: IN=eth0 OUT= "
    assert float(moment) == pytest.approx(time.time() - time.monotonic() + 5.32, abs=1)


def test_without_following_it_ends_with_what_is_there(pipe: Pipe) -> None:
    assert list(kernel_lines(follow=False)) == []
    pipe.say(RECORD)
    assert len(list(kernel_lines(follow=False))) == 1


def test_following_waits_for_what_comes(pipe: Pipe) -> None:
    lines = kernel_lines(follow=True)
    pipe.say(RECORD)
    next(lines)
    # Whether it is written before or after the reader waits makes no difference.
    writer = threading.Thread(target=pipe.say, args=(RECORD.replace(b"eth0", b"wg0"),))
    writer.start()
    assert "IN=wg0" in next(lines)
    writer.join()


def test_records_that_were_overwritten_are_passed_over(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.say(RECORD)
    answers = [BrokenPipeError(32, "Broken pipe")]
    read = os.read

    def read_late(descriptor: int, size: int) -> bytes:
        if answers:
            raise answers.pop()
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", read_late)
    assert len(list(kernel_lines(follow=False))) == 1


@pytest.mark.parametrize("record", [b"\n", b"4,112;a line\n", b"4,112,-,-;a line\n"])
def test_what_is_no_record_is_passed_over(pipe: Pipe, record: bytes) -> None:
    pipe.say(record)
    assert list(kernel_lines(follow=False)) == []


def test_the_journal_is_next(journal: Path) -> None:
    journal.write_text('#!/bin/sh\necho "1795163376.5 db-1 kernel: $*"\n')
    (line,) = kernel_lines(follow=False)
    assert line.strip() == (
        "1795163376.5 db-1 kernel: --dmesg --quiet --output=short-unix --no-pager"
    )
    (line,) = kernel_lines(follow=True)
    assert line.strip().endswith("--follow --lines=all")


@pytest.mark.parametrize("follow", [False, True])
def test_the_journal_is_next_where_no_device_is_the_kernels(
    journal: Path, monkeypatch: pytest.MonkeyPatch, *, follow: bool
) -> None:
    """Containers often have /dev/null there."""
    monkeypatch.setattr(kernel_log, "_KERNEL_LOG", os.devnull)
    journal.write_text("#!/bin/sh\necho line\n")
    assert list(kernel_lines(follow=follow)) == ["line\n"]
    journal.write_text("#!/bin/sh\necho no permission >&2\nexit 1\n")
    with pytest.raises(ConfigError, match="/dev/null: not the kernel's; journalctl: no perm"):
        list(kernel_lines(follow=follow))


def test_who_may_read_neither_is_told(journal: Path) -> None:
    journal.write_text("#!/bin/sh\necho no permission >&2\nexit 1\n")
    with pytest.raises(ConfigError, match=r"No such file.*; journalctl: no permission"):
        list(kernel_lines(follow=False))


def test_without_a_journal_it_is_said(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.unlink()
    monkeypatch.setattr(kernel_log, "find_program", {}.get)
    with pytest.raises(ConfigError, match="there is no journalctl") as caught:
        list(kernel_lines(follow=False))
    assert caught.value.hint
    assert "reyes denied -" in caught.value.hint


def test_a_reader_that_loses_interest_leaves_no_process(journal: Path) -> None:
    journal.write_text("#!/bin/sh\necho line\nexec sleep 1000\n")
    lines = kernel_lines(follow=True)
    assert next(lines) == "line\n"
    lines.close()  # type: ignore[attr-defined]  # it is a generator
