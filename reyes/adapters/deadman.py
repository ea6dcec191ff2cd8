"""A dead man's switch: a process of its own that takes the way back if nobody disarms it.

It is armed before rules go live and disarmed as the last act. If the process that commits is
killed, hangs, or loses its terminal, the switch sees its pipe close or its time run out.
"""

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_DISARMED = b"."
_SETTLE_SECONDS = 0.3
"""A command that the dead process had started may still be at work for a moment."""
_ATTEMPTS = 3

log = logging.getLogger(__name__)


@contextmanager
def armed(go_back: Callable[[], None], seconds: float) -> Iterator[None]:
    """Take the way back unless the block ends, in success or failure, within so many seconds.

    The block itself must leave things as they should be when it fails; `go_back` runs in another
    process, may run several times, and must do nothing where there is nothing to do.
    """
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        _watch(read_end, go_back, seconds)
    os.close(read_end)
    try:
        yield
    finally:
        # A block that was left at all was left by a living process.
        os.write(write_end, _DISARMED)
        os.close(write_end)
        os.waitpid(child, 0)


def _watch(read_end: int, go_back: Callable[[], None], seconds: float) -> None:
    """Wait for the word; never returns."""
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    code = 0
    try:
        ready, _, _ = select.select([read_end], [], [], seconds)
        if not ready or os.read(read_end, 1) != _DISARMED:
            log.critical("the follower did not end its commit: going back to the rules before")
            for _ in range(_ATTEMPTS):
                time.sleep(_SETTLE_SECONDS)
                go_back()
    except BaseException:
        log.exception("the way back failed")
        code = 1
    finally:
        os._exit(code)
