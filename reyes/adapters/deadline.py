"""One bound on all the waiting of a run, also against services that answer a byte at a time."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from reyes.errors import SourceError


class DeadlineError(SourceError):
    """What was waited for did not come in time."""


class _DeadlinePassed(BaseException):
    """Not an Exception: botocore takes those for failures of one request, and tries again."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Interrupt the block after so many seconds with a DeadlineError; main thread only."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise _DeadlinePassed

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _DeadlinePassed:
        raise DeadlineError(
            f"what the run waits for did not come within {seconds:.0f} s",
            "see whether AWS, the metadata service and iptables answer; `deadline:` bounds it",
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
