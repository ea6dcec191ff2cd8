"""Taking all of Reyes out of the kernel."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from msgspec import Struct
from msgspec.structs import replace

from reyes.errors import ConfigError, ReyesError
from reyes.netfilter.plan import plan_removal
from reyes.world import Kernel, Memory

log = logging.getLogger(__name__)


class Removed(Struct, frozen=True):
    """Whether there was anything of Reyes, and the chains that stay for the rules of others."""

    found: bool
    kept: tuple[str, ...]


def remove(memory: Memory, *places: Iterable[Kernel]) -> Removed:
    """Take all of Reyes out of the kernel, as each of these shows it.

    What cannot be taken out in one place is taken out in all others, and a memory that cannot be
    used keeps nobody from that. What a place does not come to yield after a failure stays.

    Raises:
        ConfigError, KernelError: the first that was refused, when all else is out. What is left
            counts as drift: the next pass repairs it, unless it is removed before.
    """
    found, kept, refused = False, list[str](), list[ReyesError]()
    for place in places:
        with _noted(refused):
            for kernel in place:
                with _noted(refused):
                    live = kernel.read(strict=False)
                    plan = plan_removal(live)
                    kernel.execute(plan)
                    found = found or bool(plan.steps)
                    for table in live.tables:
                        chains = sorted(table.entered_by_others)
                        kept += (f"IPv{table.family.value} {chain}" for chain in chains)
    if refused:
        if found:
            log.warning("all else of Reyes is removed")
        raise refused[0]
    _forget(memory)
    return Removed(found, tuple(kept))


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
