"""How far a long read has come: one moving line on a terminal, log lines elsewhere."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from reyes.adapters.ec2 import Progress

log = logging.getLogger(__name__)


@contextmanager
def progress_to(stream: TextIO) -> Iterator["Progress"]:
    """Show progress on a terminal, and clear its line at the end; log it where there is none."""
    if not stream.isatty():
        yield _PageLog()
        return
    line = _Line(stream)
    try:
        yield line
    finally:
        line.show("")


class _Line:
    """The items read so far, in place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = Lock()
        self._items: dict[tuple[str, str], int] = {}

    def __call__(self, source: str, call: str, items: int) -> None:
        with self._lock:
            self._items[source, call] = items
            self.show(f"read {sum(self._items.values())} items, now {call} in {source}")

    def show(self, text: str) -> None:
        self._stream.write(f"\r{text}\x1b[K")
        self._stream.flush()


class _PageLog:
    """A line for each page after a call's first: short reads stay silent."""

    def __init__(self) -> None:
        self._begun: set[tuple[str, str]] = set()

    def __call__(self, source: str, call: str, items: int) -> None:
        is_first = (source, call) not in self._begun
        self._begun.add((source, call))
        log.log(
            logging.DEBUG if is_first else logging.INFO,
            "%s: %s: %d items so far",
            source,
            call,
            items,
        )
