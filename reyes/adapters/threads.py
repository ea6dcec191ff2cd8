"""Work side by side, in threads that nobody has to wait for."""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

from reyes.errors import ConfigError

Result = TypeVar("Result")


def side_by_side(works: Sequence[Callable[[], Result]]) -> Callable[[], list[Result]]:
    """Begin each work in a thread of its own, and return what waits for all, in their order.

    It raises the first failure at once. Whoever fails himself, runs out of time or is interrupted
    need not wait: the threads end with the process.

    Raises:
        ConfigError: the system has no room for a thread.
    """
    outcomes: SimpleQueue[tuple[int, Result | BaseException]] = SimpleQueue()

    def run(number: int, work: Callable[[], Result]) -> None:
        try:
            outcomes.put((number, work()))
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
            outcomes.put((number, error))

    def wait() -> list[Result]:
        found: dict[int, Result] = {}
        while len(found) < len(works):
            number, outcome = outcomes.get()
            if isinstance(outcome, BaseException):
                raise outcome
            found[number] = outcome
        return [found[number] for number in sorted(found)]

    try:
        for item in enumerate(works):
            threading.Thread(target=run, args=item, daemon=True).start()
    except RuntimeError as error:
        raise ConfigError(
            f"the system refuses another thread: {error}",
            "see TasksMax= of the unit, and how many processes this host allows",
        ) from error
    return wait
