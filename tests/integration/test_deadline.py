"""An alarm may come at any moment, also when the block has just ended."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from types import FrameType
from typing import Any

import pytest

from reyes.adapters.deadline import deadline
from reyes.errors import SourceError, UnreachableError

FAR = 60


def ring(frame: FrameType) -> None:
    """Do what the interpreter does when the alarm comes in a frame."""
    handler = signal.getsignal(signal.SIGALRM)
    if callable(handler):
        handler(signal.SIGALRM, frame)


class Bell:
    """A trace function that has the alarm come at one moment: instructions, in all new frames."""

    def __init__(self, moment: int) -> None:
        self._left = moment
        # Python 3.12 looks for instructions only if a frame has asked before the tracing begins.
        sys._getframe().f_trace_opcodes = True

    @property
    def rang(self) -> bool:
        return self._left <= 0

    def __call__(self, frame: FrameType, event: str, _value: Any) -> "Bell":
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left == 0:
                ring(frame)
        return self


def end_well(bell: Bell) -> None:
    with deadline(FAR):
        sys.settrace(bell)


def end_badly(bell: Bell) -> None:
    with deadline(FAR):
        sys.settrace(bell)
        raise SourceError("of the block")


def end_after_another(bell: Bell) -> None:
    with deadline(FAR):
        sys.settrace(bell)
        with deadline(FAR):
            pass


def outcome(block: Callable[[Bell], None], bell: Bell) -> str:
    before, tracing = signal.getsignal(signal.SIGALRM), sys.gettrace()
    try:
        block(bell)
    except BaseException as error:  # noqa: BLE001 - what must not come is no Exception
        return type(error).__name__
    finally:
        sys.settrace(tracing)
        assert signal.getsignal(signal.SIGALRM) is before
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    return "nothing"


def outcomes(block: Callable[[Bell], None]) -> set[str]:
    """Ring at one moment after the other, until the block ends before."""
    found: set[str] = set()
    for moment in count(1):
        bell = Bell(moment)
        said = outcome(block, bell)
        if not bell.rang:
            break
        found.add(said)
    return found


@pytest.mark.parametrize(
    ("block", "own"),
    [(end_well, "nothing"), (end_badly, "SourceError"), (end_after_another, "nothing")],
)
def test_an_alarm_at_the_end_is_told_as_a_deadline_or_not_at_all(
    block: Callable[[Bell], None], own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that is put off must not come in the bell, which a slow machine may still be in.
    monkeypatch.setattr(f"{deadline.__module__}._SOON_SECONDS", FAR)
    assert outcomes(block) == {own, "UnreachableError"}


def test_an_alarm_that_comes_again_at_once_is_put_off_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{deadline.__module__}._SOON_SECONDS", FAR)

    def ring_again(frame: FrameType, event: str, _value: Any) -> Any:
        if frame.f_code.co_name == "interrupt" and event == "return":
            sys.settrace(None)
            ring(frame)
        return ring_again

    on_the_way = eval("look()", vars(contextlib), {"look": sys._getframe})
    tracing = sys.gettrace()
    try:
        with deadline(FAR):
            sys.settrace(ring_again)
            ring(on_the_way)
            assert sys.gettrace() is None
    finally:
        sys.settrace(tracing)


def test_an_alarm_before_the_block_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{deadline.__module__}._SOON_SECONDS", 0.2)

    def ring_on_the_way(frame: FrameType, _event: str, _value: Any) -> Any:
        """Ring where the timer runs and the generator has given way already."""
        if frame.f_code.co_name == "__enter__" and signal.getitimer(signal.ITIMER_REAL)[0]:
            sys.settrace(None)
            ring(frame)
        return ring_on_the_way

    started, tracing = time.monotonic(), sys.gettrace()
    try:
        with pytest.raises(UnreachableError):  # noqa: PT012 - what is tried is the way into the block
            sys.settrace(ring_on_the_way)
            with deadline(FAR):
                time.sleep(FAR)
    finally:
        sys.settrace(tracing)
    assert time.monotonic() - started < FAR / 2
