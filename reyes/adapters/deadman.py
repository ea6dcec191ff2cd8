"""A dead man's switch: a process of its own that takes the way back if nobody disarms it.

It is armed before rules go live and disarmed as the last act. If the process that commits fails,
is killed or hangs, the switch hears of it, sees its pipe close or its time run out.

A command that the process had started outlives it, and may still change the kernel. It holds a
second pipe open, so that the switch goes back again when the last of them has ended.
"""

import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_DISARMED = b"."
_FAILED = b"!"
_LAST_COMMAND_SECONDS = 15
"""A command waits for the xtables lock for two thirds of this (commands.LOCK_WAIT_SECONDS)."""
_DEATH_SECONDS = 5
_LOG_SECONDS = 5
_FOR_THE_FOLLOWER = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Signals to which the switch is deaf: each end in the old rules, through it."""

log = logging.getLogger(__name__)


@contextmanager
def armed(go_back: Callable[[], None], seconds: float) -> Iterator[None]:
    """Take the way back unless the block ends well within so many seconds.

    A process that is still in the block then is killed: it must not go on where it was held up.
    `go_back` runs in another process, may run several times, and must do nothing where there is
    nothing to do.
    """
    word, commands = os.pipe(), os.pipe()
    os.set_inheritable(commands[1], True)  # noqa: FBT003 - the standard library's signature
    for stream in (sys.stdout, sys.stderr):  # else the switch would say it once more
        with suppress(OSError):
            stream.flush()
    process = os.getpid()
    # Blocked over the fork, so that none of them finds a switch that is not deaf to it yet.
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_FOLLOWER)
    switch = os.fork()
    if switch == 0:
        os.close(word[1])
        os.close(commands[1])
        _watch(process, word[0], commands[0], go_back, seconds)
    signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    os.close(word[0])
    os.close(commands[0])
    said = _FAILED
    try:
        yield
        said = _DISARMED
    finally:
        with suppress(BrokenPipeError):  # somebody killed the switch
            os.write(word[1], said)
        os.close(word[1])
        os.close(commands[1])
        os.waitpid(switch, 0)


def _watch(
    process: int, word: int, commands: int, go_back: Callable[[], None], seconds: float
) -> NoReturn:
    """Wait for the word of a process, and go back if it is not the right one."""
    try:
        os.setsid()
        hangs = not _hears(word, seconds)
        if hangs:
            _kill(process, word)
        said = b"" if hangs else os.read(word, 1)
        failures = [] if said == _DISARMED else _go_back_twice(commands, go_back)
        _bound_logging()
        if hangs:
            log.critical("the follower hung in its commit: it was killed")
        if said not in (_DISARMED, _FAILED):
            log.critical("the follower did not end its commit: the way back was taken")
        for failure in failures:
            log.error("the way back failed", exc_info=failure)
    except BaseException:
        _bound_logging()
        log.exception("the dead man's switch failed")
    finally:
        os._exit(0)


def _bound_logging() -> None:
    """End this process soon: it holds the lock, and a terminal that was stopped takes no line.

    For the same reason all else is done before it says a word.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_LOG_SECONDS)


def _kill(process: int, word: int) -> None:
    if os.getppid() == process:
        os.kill(process, signal.SIGKILL)
        _hears(word, _DEATH_SECONDS)


def _go_back_twice(commands: int, go_back: Callable[[], None]) -> list[Exception]:
    """Go back at once, and when no command is at work any more; return what failed."""
    failures = []
    for seconds in (0, _LAST_COMMAND_SECONDS):
        _hears(commands, seconds)
        try:
            go_back()
        except Exception as error:  # noqa: BLE001 - it is logged last
            failures.append(error)
    return failures


def _hears(descriptor: int, seconds: float) -> bool:
    """Wait until there is something to read, or the end, for so many seconds at most."""
    ready, _, _ = select.select([descriptor], [], [], seconds)
    return bool(ready)
