"""Taking all of Reyes out of the kernel."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from reyes.errors import ConfigError, ReyesError
from reyes.netfilter.plan import plan_removal
from reyes.world import Kernel, Memory

log = logging.getLogger(__name__)


def remove(memory: Memory, *places: Iterable[Kernel]) -> bool:
    """Take all of Reyes out of the kernel, as each of these shows it; tell if there was anything.

    What cannot be taken out in one place is taken out in all others, and a memory that cannot be
    used keeps nobody from that. What a place does not come to yield after a failure stays.

    Raises:
        ConfigError, KernelError: the first that was refused, when all else is out. What is left
            counts as drift: the next pass repairs it, unless it is removed before.
    """
    found, refused = False, list[ReyesError]()
    for place in places:
        with _noted(refused):
            for kernel in place:
                with _noted(refused):
                    plan = plan_removal(kernel.read(strict=False))
                    kernel.execute(plan)
                    found = found or bool(plan.steps)
    if refused:
        if found:
            log.warning("all else of Reyes is removed")
        raise refused[0]
    _forget(memory)
    return found


@contextmanager
def _noted(refused: list[ReyesError]) -> Iterator[None]:
    try:
        yield
    except ReyesError as error:
        refused.append(error)


def _forget(memory: Memory) -> None:
    try:
        memory.end_trial(proved=False)
        state = memory.load()
        if state.applied is not None:
            memory.save(replace(state, applied=None))
    except ConfigError as error:
        log.warning("the removal is not remembered: %s", error.message)
