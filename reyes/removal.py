"""Taking all of Reyes out of the kernel."""

import logging

from msgspec.structs import replace

from reyes.errors import ConfigError
from reyes.netfilter.plan import plan_removal
from reyes.world import Kernel, Memory

log = logging.getLogger(__name__)


def remove(memory: Memory, *kernels: Kernel) -> bool:
    """Take all of Reyes out of the kernel, as each of these shows it; tell if there was anything.

    A memory that cannot be used does not keep anybody from that.
    """
    found = False
    for kernel in kernels:
        plan = plan_removal(kernel.read(strict=False))
        kernel.execute(plan)
        found = found or bool(plan.steps)
    try:
        memory.end_trial(proved=False)
        state = memory.load()
        if state.applied is not None:
            memory.save(replace(state, applied=None))
    except ConfigError as error:
        log.warning("all is removed, but that is not remembered: %s", error.message)
    return found
