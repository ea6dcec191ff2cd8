"""The state directory: what is whole, what is corrupt, and who holds the lock."""

from pathlib import Path

import pytest

from reyes.adapters.state import StateDirectory
from reyes.errors import ConfigError, SourceError
from reyes.net import Family
from reyes.netfilter.live import Generation
from reyes.state import Hold, State
from tests.commits import in_force

GARBAGE = (b"", b"{", b"[1]", b"null", b'{"hold": 1}', b"\xff", b"[" * 100_000)


@pytest.fixture
def memory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path)


def test_what_is_kept_comes_back(memory: StateDirectory) -> None:
    kernel = in_force()
    live = kernel.read()
    generation = Generation(live, kernel.read_members())
    memory.keep_generation(generation)
    memory.hold_generation(Generation(live))
    assert memory.generation() == generation
    assert memory.held_generation() == Generation(live)
    assert {table.family for table in live.tables} == set(Family)
    state = State(
        hold=Hold(serial=7, content_sha256="abc", until=9), applied="digest", not_after=5
    )
    memory.save(state)
    assert memory.load() == state


def test_a_fresh_directory_remembers_nothing(memory: StateDirectory) -> None:
    assert memory.load() == State()
    assert memory.last_good() is None
    assert memory.generation() is None
    assert memory.held_generation() is None


def test_a_generation_can_be_forgotten(memory: StateDirectory) -> None:
    memory.keep_generation(None)
    memory.keep_generation(Generation(in_force().read()))
    memory.keep_generation(None)
    assert memory.generation() is None


READERS = {
    "state.json": StateDirectory.load,
    "previous.json": StateDirectory.generation,
    "held.json": StateDirectory.held_generation,
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
def test_what_is_corrupt_stays_where_it_is_while_one_only_looks(
    memory: StateDirectory, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"{")
    path.chmod(0o600)
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"{name} is corrupt"):
            READERS[name](memory.looking())
    assert path.read_bytes() == b"{"


def test_a_lock_is_held_by_one(memory: StateDirectory) -> None:
    refused = pytest.raises(SourceError, match="another follower run holds")
    with memory.lock(), refused, memory.lock():
        raise AssertionError
    with memory.lock():
        pass


def test_what_is_short_of_processes_inside_is_not_taken_for_a_lock(
    memory: StateDirectory,
) -> None:
    with pytest.raises(BlockingIOError), memory.lock():
        raise BlockingIOError("fork: resource temporarily unavailable")
