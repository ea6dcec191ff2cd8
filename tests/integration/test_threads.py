"""Work side by side: all of it, in order, or the first failure without the rest."""

import threading

import pytest

from reyes.adapters.threads import side_by_side
from reyes.errors import ConfigError


def test_results_come_in_the_order_of_the_works() -> None:
    late = threading.Event()

    def first() -> str:
        assert late.wait(10)
        return "first"

    def second() -> str:
        late.set()
        return "second"

    assert side_by_side([first, second])() == ["first", "second"]
    assert side_by_side([])() == []


def test_a_failure_waits_for_nobody() -> None:
    never, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        assert never.wait(10)

    def fail() -> None:
        raise LookupError("gone")

    wait = side_by_side([hang, fail])
    with pytest.raises(LookupError, match="gone"):
        wait()
    assert begun.wait(10)
    never.set()


def test_a_host_without_room_for_a_thread_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ConfigError, match="refuses another thread: can't start new thread"):
        side_by_side([lambda: None])
