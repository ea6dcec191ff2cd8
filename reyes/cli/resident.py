"""A pass again and again, as a service: timing, signals, and what systemd wants to hear."""

import gc
import logging
import os
import random
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from reyes.errors import ReyesError

JITTER = 0.1
"""Each pause is longer or shorter by up to this share, so that hosts do not fall into step."""

_STOP = frozenset({signal.SIGTERM, signal.SIGINT})
_RELOAD = signal.SIGHUP
_HEARD = _STOP | {_RELOAD}

log = logging.getLogger(__name__)


Listen = Callable[[float], frozenset[int]]
"""Waits for so many seconds, and returns the signals that came since it was called last."""


class ResidentPass(NamedTuple):
    """What to do again and again, and how many seconds it may honestly take."""

    run: Callable[[], object]
    longest: float


def run_resident(make_pass: Callable[[], ResidentPass], interval: int) -> None:
    """Run a pass, pause for `interval` seconds, and so on until SIGTERM or SIGINT.

    `make_pass` reads the configuration: it is called at the start and at SIGHUP. A new one that
    is not usable is reported and the old one kept. A pass that fails is reported and tried again
    after the pause; any exception but a ReyesError is a bug, and ends the process.
    No signal cuts a pass short: it is heard in the pause.

    Raises:
        ReyesError: the first configuration is not usable.
    """
    gc.enable()  # a process that stays must not grow by what one that ends may leave behind
    with _listening() as listen:
        one_pass = make_pass()
        _expect(one_pass)
        notify("READY=1")
        for seconds in _pauses(interval):
            heard = _pause(listen, seconds)
            if heard & _STOP:
                break
            if _RELOAD in heard:
                one_pass = _reloaded(make_pass, one_pass)
            notify("WATCHDOG=1")
            _attempt(one_pass)
        notify("STOPPING=1")


def notify(*assignments: str) -> None:
    """Tell the service manager (sd_notify(3)); without one nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(f"\0{address[1:]}" if address[0] == "@" else address)
            channel.send("\n".join(assignments).encode(errors="replace"))
    except OSError as error:
        log.debug("%s does not listen: %s", address, error.strerror)


@contextmanager
def _listening() -> Iterator[Listen]:
    """Let signals be heard when we listen: the interpreter writes their numbers to a socket.

    A handler that did more would run between any two instructions, those of a lock included.
    """
    here, there = socket.socketpair()
    there.setblocking(False)  # noqa: FBT003 - takes no keyword
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in _HEARD}
    signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)

    def listen(seconds: float) -> frozenset[int]:
        ready, _, _ = select.select([here], [], [], seconds)
        # A deadline's alarm arrives as well, and means nothing here.
        return _HEARD.intersection(here.recv(4096)) if ready else frozenset()

    try:
        yield listen
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        here.close()
        there.close()


def _pauses(interval: int) -> Iterator[float]:
    """Yield the pause before each pass: none, any, then about `interval`: a fleet spreads."""
    yield 0
    yield random.uniform(0, interval)
    while True:
        yield interval * random.uniform(1 - JITTER, 1 + JITTER)


def _pause(listen: Listen, seconds: float) -> frozenset[int]:
    """Wait, and keep the watchdog calm; return at once what is heard."""
    end = time.monotonic() + seconds
    while True:
        left = max(0, end - time.monotonic())
        heard = listen(min(left, _watchdog_seconds() / 2))
        if heard or not left:
            return heard
        notify("WATCHDOG=1")


def _attempt(one_pass: ResidentPass) -> None:
    try:
        one_pass.run()
    except ReyesError as error:
        hint = f"; hint: {error.hint}" if error.hint else ""
        log.error("%s (exit code %d if run once%s)", error.message, error.exit_code, hint)
        log.debug("the pass failed", exc_info=True)
        _tell(f"the last pass failed: {error.message}")
    else:
        _tell("the last pass went well")


def _reloaded(make_pass: Callable[[], ResidentPass], before: ResidentPass) -> ResidentPass:
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        one_pass = make_pass()
    except ReyesError as error:
        log.error("the configuration stays as it was: %s", error.message)
        one_pass = before
    else:
        log.info("configuration read anew")
    _expect(one_pass)
    notify("READY=1")
    return one_pass


def _tell(text: str) -> None:
    """Set the line that `systemctl status` shows; what follows a line's end would be a command."""
    now = time.strftime("%H:%M:%S")
    notify("WATCHDOG=1", f"STATUS={now} {text.splitlines()[0]}")


def _watchdog_seconds() -> float:
    """Return how long systemd bears silence by its unit; endless if it does not watch."""
    said = os.environ.get("WATCHDOG_USEC", "")
    return int(said) / 1e6 if said.isdecimal() and int(said) else float("inf")


def _expect(one_pass: ResidentPass) -> None:
    """Ask systemd for more patience if its unit grants less than a pass may take."""
    if one_pass.longest > _watchdog_seconds():
        notify(f"WATCHDOG_USEC={int(one_pass.longest * 1e6)}")
