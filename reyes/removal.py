"""Taking all of Reyes out of the kernel."""

import logging

from msgspec.structs import replace

from reyes.errors import ConfigError
from reyes.netfilter.plan import CommitPlan, plan_removal
from reyes.world import Kernel, Memory

log = logging.getLogger(__name__)


def remove(memory: Memory, kernel: Kernel) -> CommitPlan:
    """Take all of Reyes out of the kernel; return what was done.

    A memory that cannot be used does not keep anybody from that.
    """
    plan = plan_removal(kernel.read(refuse_split=False))
    kernel.execute(plan)
    try:
        state = memory.load()
        if state.applied is not None:
            memory.save(replace(state, applied=None))
    except ConfigError as error:
        log.warning("all is removed, but that is not remembered: %s", error.message)
    return plan
