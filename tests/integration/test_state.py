"""The state directory: what is whole, what is corrupt, and who holds the lock."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import pytest

from reyes.adapters.state import StateDirectory
from reyes.envelope import MAX_ENVELOPE_BYTES
from reyes.errors import ConfigError, SourceError
from reyes.net import Family
from reyes.netfilter.live import Generation, LiveKernel
from reyes.netfilter.settled import settle
from reyes.state import Hold, Identity, State
from tests.commits import WANTED, in_force

GARBAGE = (b"", b"{", b"[1]", b"null", b'{"hold": 1}', b"\xff", b"[" * 100_000)


@pytest.fixture
def memory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path)


def test_what_is_kept_comes_back(memory: StateDirectory) -> None:
    kernel = in_force()
    live = kernel.read()
    generation = Generation(live, kernel.read_members())
    memory.keep_generation("trial", generation)
    memory.end_trial(proved=True)
    memory.keep_generation("held", Generation(live))
    assert memory.generation("previous") == generation
    assert memory.generation("held") == Generation(live)
    assert {table.family for table in live.tables} == set(Family)
    state = State(
        hold=Hold(serial=7, content_sha256="abc", until=9), applied="digest", not_after=5
    )
    memory.save(state)
    assert memory.load() == state


def test_what_is_kept_already_is_not_written_again(memory: StateDirectory, tmp_path: Path) -> None:
    identity = Identity(instance_id="i-0000000a", region=None, machine="m")
    calm = settle(WANTED, "key", "content", None)
    files = []
    for _ in range(2):
        memory.remember_identity(identity)
        memory.keep_settled(calm)
        found = [(tmp_path / name).stat() for name in ("state.json", "settled.json")]
        files.append([(each.st_ino, each.st_mtime_ns) for each in found])
    assert files[0] == files[1]
    assert (memory.load().identity, memory.settled()) == (identity, calm)


def test_a_signed_object_that_is_too_long_is_none(memory: StateDirectory) -> None:
    memory.keep(b"-" * MAX_ENVELOPE_BYTES)
    assert memory.last_good()
    memory.keep(b"-" * (MAX_ENVELOPE_BYTES + 1))
    assert memory.last_good() is None


def test_everybody_may_look_into_a_directory_that_is_made_whatever_the_umask(
    tmp_path: Path,
) -> None:
    before = os.umask(0o077)
    try:
        with StateDirectory(tmp_path / "state").lock():
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o755


def test_who_holds_the_lock_has_removed_what_killed_runs_left(
    memory: StateDirectory, tmp_path: Path
) -> None:
    (left := tmp_path / ".state.json.k1ll3d_x").touch()
    os.utime(left, (0, 0))
    with memory.lock():
        assert not left.exists()


def test_a_read_only_directory_stays_as_it_is(memory: StateDirectory) -> None:
    with pytest.raises(AssertionError, match="read only"):
        memory.as_read_only().save(State(not_after=5))
    assert memory.load() == State()
    memory.keep_generation("trial", Generation(LiveKernel()))
    for proved in (False, True):
        with pytest.raises(AssertionError, match="read only"):
            memory.as_read_only().end_trial(proved=proved)
    assert memory.generation("trial")


def test_a_fresh_directory_remembers_nothing(memory: StateDirectory) -> None:
    assert memory.load() == State()
    assert memory.last_good() is None
    assert memory.generation("previous") is None
    assert memory.generation("trial") is None
    assert memory.generation("held") is None


@pytest.mark.parametrize("proved", [False, True])
def test_rules_before_a_trial_are_those_to_go_back_to_only_if_it_went_well(
    memory: StateDirectory, *, proved: bool
) -> None:
    older, before = Generation(LiveKernel()), Generation(in_force().read())
    memory.end_trial(proved=False)  # there is none
    memory.keep_generation("trial", older)
    memory.end_trial(proved=True)
    memory.keep_generation("trial", before)
    assert (memory.generation("trial"), memory.generation("previous")) == (before, older)
    memory.end_trial(proved=proved)
    assert memory.generation("trial") is None
    assert memory.generation("previous") == (before if proved else older)


def test_rules_before_a_trial_that_are_gone_are_missed(memory: StateDirectory) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*previous\.json"):
        memory.end_trial(proved=True)


READERS: dict[str, Callable[[StateDirectory], object]] = {
    "state.json": StateDirectory.load,
    "previous.json": lambda memory: memory.generation("previous"),
    "trial.json": lambda memory: memory.generation("trial"),
    "held.json": lambda memory: memory.generation("held"),
}


OTHER_READERS: dict[str, Callable[[StateDirectory], object]] = {
    "last-good.gpg": StateDirectory.last_good,
    "settled.json": StateDirectory.settled,
    "status.json": StateDirectory.status,
}


@pytest.mark.parametrize("garbage", GARBAGE, ids=[text[:12].decode("latin1") for text in GARBAGE])
@pytest.mark.parametrize("name", READERS)
def test_what_is_corrupt_is_set_aside_once(
    memory: StateDirectory, tmp_path: Path, name: str, garbage: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(garbage)
    path.chmod(0o600)
    read = READERS[name]
    with pytest.raises(ConfigError, match=f"{name} is corrupt") as caught:
        read(memory)
    aside = path.with_suffix(".corrupt")
    assert caught.value.hint == f"it is kept as {aside}; the next run starts without it"
    assert aside.read_bytes() == garbage
    assert read(memory) in (None, State())


@pytest.mark.parametrize("name", READERS)
def test_what_is_corrupt_stays_where_it_is_in_a_read_only_directory(
    memory: StateDirectory, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"{")
    path.chmod(0o600)
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"{name} is corrupt"):
            READERS[name](memory.as_read_only())
    assert path.read_bytes() == b"{"


@pytest.mark.parametrize("name", [*READERS, *OTHER_READERS])
def test_what_cannot_be_read_is_not_taken_for_missing(
    memory: StateDirectory, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"cannot read .*{name}: Is a directory"):
        {**READERS, **OTHER_READERS}[name](memory)


def test_what_decides_outlives_a_crash_of_the_machine(
    memory: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", note)
    memory.save(State())
    memory.keep(b"")
    memory.keep_generation("trial", Generation(LiveKernel()))
    files = [name for name in synced if name.startswith(".")]
    assert [name.split(".")[1] for name in files] == ["state", "last-good", "trial"]


def test_a_lock_is_held_by_one(memory: StateDirectory) -> None:
    refused = pytest.raises(SourceError, match="another follower run ")
    with memory.lock(), refused, memory.lock():
        raise AssertionError
    with memory.lock():
        pass


def refusal(memory: StateDirectory) -> SourceError:
    with pytest.raises(SourceError) as caught, memory.lock():
        raise AssertionError
    return caught.value


def test_who_holds_the_lock_is_named_as_long_as_he_does(
    memory: StateDirectory, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    with memory.lock():
        refused = refusal(memory)
        assert refused.message == f"another follower run (process {os.getpid()}) holds {lock}"
        assert refused.hint is not None
        assert "rules that are still on trial are taken back" in refused.hint
        assert refusal(memory).message == refused.message
    assert lock.read_bytes() == b""
    lock.write_bytes(b"9999999999\nof another time")
    with memory.lock():
        assert refusal(memory).message == refused.message


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\n", b"0\n", b"-5\n", b"12", b"1 2\n", b"12\n\n", b"\xff\n", b"9" * 99),
        *(b"1\n", b"4194305\n"),  # one that does not hold it, and one that cannot be
    ],
)
def test_a_lock_that_holds_anything_else_names_nobody(
    memory: StateDirectory, tmp_path: Path, text: bytes
) -> None:
    lock = tmp_path / "lock"
    with memory.lock():
        lock.write_bytes(text)
        refused = refusal(memory)
    assert refused.message == f"another follower run holds {lock}"
    assert refused.hint == "wait for it to end"


def test_who_is_patient_gets_the_lock_as_soon_as_it_is_free(memory: StateDirectory) -> None:
    with ThreadPoolExecutor(1) as pool, ExitStack() as waiting:
        with memory.lock():
            locked = pool.submit(waiting.enter_context, memory.lock(patience=30))
            assert not wait((locked,), 0.5).done
        locked.result(10)
        refusal(memory)


def test_patience_has_an_end_and_is_told_once(
    memory: StateDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    with memory.lock():
        begin = time.monotonic()
        with pytest.raises(SourceError, match="another follower run "), memory.lock(patience=0.5):
            raise AssertionError
        assert time.monotonic() - begin > 0.5
    assert caplog.text.count("trying for") == 1


def test_a_link_in_the_place_of_the_lock_is_refused(
    memory: StateDirectory, tmp_path: Path
) -> None:
    (target := tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(ConfigError, match="cannot use the state directory"), memory.lock():
        raise AssertionError
    assert target.read_bytes() == b"precious"


def test_what_is_short_of_processes_inside_is_not_taken_for_a_lock(
    memory: StateDirectory,
) -> None:
    with pytest.raises(BlockingIOError), memory.lock():
        raise BlockingIOError("fork: resource temporarily unavailable")
