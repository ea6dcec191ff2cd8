"""One bound on all the waiting of a run, also against services that answer a byte at a time."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from reyes.errors import UnreachableError

_SOON_SECONDS = 0.001


class _DeadlinePassed(BaseException):
    """Not an Exception: botocore takes those for failures of one request, and tries again."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Interrupt the block after so many seconds with an UnreachableError; main thread only."""
    running = False

    def interrupt(_signal: int, frame: FrameType | None) -> None:
        nonlocal running
        if not running:
            return  # the block has ended meanwhile
        if frame is not None and (
            frame.f_globals is vars(contextlib) or frame.f_code is interrupt.__code__
        ):
            # On the way into the block or out of it, where nobody would catch what is raised, or
            # here already for one that came there.
            signal.setitimer(signal.ITIMER_REAL, _SOON_SECONDS)
            return
        running = False
        raise _DeadlinePassed

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            running = True
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            running = False
    except _DeadlinePassed:
        raise UnreachableError(
            f"what the run waits for did not come within {seconds:.0f} s",
            "see whether AWS, the metadata service and iptables answer, and what else this host is"
            " busy with; `deadline:` bounds it",
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
