"""A pass again and again, as a service: timing, signals, and what systemd wants to hear."""

import logging
import os
import random
import signal
import socket
import threading
from collections.abc import Callable

from reyes.errors import ReyesError

JITTER = 0.1
"""Each pause is longer or shorter by up to this share, so that hosts do not fall into step."""

log = logging.getLogger(__name__)


def run_resident(make_pass: Callable[[], Callable[[], None]], interval: float) -> None:
    """Run a pass every `interval` seconds until SIGTERM or SIGINT; a pass is never cut short.

    `make_pass` reads the configuration: it is called at the start and at SIGHUP. A new one that
    is not usable is reported and the old one kept. A pass that fails is reported and tried again.

    Raises:
        ReyesError: the first configuration is not usable.
    """
    stop, wake = threading.Event(), threading.Event()
    reload = threading.Event()

    def on_stop(_signal: int, _frame: object) -> None:
        stop.set()
        wake.set()

    def on_reload(_signal: int, _frame: object) -> None:
        reload.set()
        wake.set()

    one_pass = make_pass()
    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGINT, on_stop)
    signal.signal(signal.SIGHUP, on_reload)
    notify("READY=1")
    while not stop.is_set():
        if reload.is_set():
            reload.clear()
            one_pass = _reloaded(make_pass, one_pass)
        try:
            one_pass()
        except ReyesError as error:
            log.error("%s (exit code %d if run once)", error.message, error.exit_code)
        notify("WATCHDOG=1")
        wake.wait(interval * random.uniform(1 - JITTER, 1 + JITTER))
        wake.clear()
    notify("STOPPING=1")


def notify(message: str) -> None:
    """Tell the service manager (sd_notify(3)); without one nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(message.encode(), f"\0{address[1:]}" if address[0] == "@" else address)


def _reloaded(
    make_pass: Callable[[], Callable[[], None]], before: Callable[[], None]
) -> Callable[[], None]:
    try:
        one_pass = make_pass()
    except ReyesError as error:
        log.error("the configuration stays as it was: %s", error.message)
        return before
    log.info("configuration read anew")
    return one_pass
