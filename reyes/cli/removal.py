"""`reyes follower --remove`: the way out."""

import logging
import time
from contextlib import ExitStack
from pathlib import Path

from reyes.adapters.kernel import Kernel, families
from reyes.adapters.state import WAY_OUT_SECONDS, StateDirectory
from reyes.cli.options import is_disabled
from reyes.cli.recording import record_outcome
from reyes.cli.words import say
from reyes.config import FollowerConfig
from reyes.errors import ConfigError
from reyes.removal import remove

log = logging.getLogger(__name__)


def take_out(settings: FollowerConfig) -> None:
    """Take all of Reyes out of the kernel, also where the state directory cannot be used."""
    memory = StateDirectory(Path(settings.state_directory))
    with ExitStack() as stack:
        try:
            stack.enter_context(memory.lock(settings.deadline + WAY_OUT_SECONDS))
        except ConfigError as error:
            log.warning("%s", error.message)
        started = time.monotonic()
        # What is in force goes first: the other backend may keep whoever asks it waiting.
        places = (
            find(family)
            for find in (Kernel.of_backend_in_use, Kernel.of_other_backend)
            for family in families()
        )
        removed = remove(memory, *places)
        record_outcome(settings, memory, "removed", started)
    kept = ", ".join(removed.kept)
    but = f" but {kept}: empty now, and in use by rules of others" if kept else ""
    say(f"removed all of Reyes{but}" if removed.found else "there was nothing of Reyes")
    say(
        "nothing is judged any more: a group that lets in all of the tunnel opens this host now",
        err=True,
    )
    if not is_disabled(settings):
        say(f"the next run applies it again, unless {settings.disable_file} exists", err=True)
