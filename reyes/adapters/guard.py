"""What keeps a commit from locking anybody out: rehearsal, dead man's switch, health, people."""

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

from reyes.adapters.commands import COMMAND_SECONDS
from reyes.adapters.deadman import armed
from reyes.adapters.health import Health
from reyes.adapters.rehearsal import rehearse
from reyes.config import FollowerConfig
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.live import LiveKernel

_AGAIN_SECONDS = 5
"""So long a store may take to answer with the rules before, until it counts as silent, too."""


_ENDINGS = (signal.SIGHUP, signal.SIGTERM)
"""What a terminal that is closed sends, and `kill`: while people are asked, a no like Ctrl-C."""


class CommitGuard:
    """The guard of one commit; make it before the commit, as it looks at the host's health then.

    `confirm_seconds` asks the person at the terminal, too.
    """

    def __init__(
        self,
        config: FollowerConfig,
        ask_source: Callable[[], object] | None,
        confirm_seconds: int | None = None,
    ) -> None:
        self._config = config
        self._health = Health(config.probes, ask_source)
        self._confirm_seconds = confirm_seconds
        self._refused = False

    def rehearse(self, dataplane: Dataplane, live: LiveKernel) -> None:
        """Load what is new into a namespace of its own, unless that is switched off."""
        if self._config.rehearsal:
            rehearse(dataplane, live)

    def armed(self, go_back: Callable[[], None]) -> AbstractContextManager[None]:
        """Watch over the block from another process, for as long as it may honestly take."""
        seconds = self._config.confirm_timeout + (self._confirm_seconds or 0) + COMMAND_SECONDS
        return armed(go_back, seconds)

    def trouble(self) -> str | None:
        """Wait until the host proves healthy and, if asked to, a person agrees."""
        trouble = self._health.trouble(self._config.confirm_timeout)
        if trouble is None and self._confirm_seconds is not None:
            trouble = _ask(self._confirm_seconds)
            self._refused = trouble is not None
        return trouble

    def is_well(self) -> bool:
        """Look for a moment whether the host reaches what it reached before the commit.

        After a person's no that is not asked: it is about the rules, however the host is.
        """
        return self._refused or self._health.trouble(_AGAIN_SECONDS) is None


def _ask(seconds: int) -> str | None:
    """Ask at the terminal; what is no whole `yes` in time is a no, and so is nobody there."""
    before = {ending: signal.signal(ending, signal.default_int_handler) for ending in _ENDINGS}
    try:
        sys.stderr.write(f"Can you still open new connections? Type yes within {seconds} s: ")
        sys.stderr.flush()
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        if not ready:
            return f"nobody confirmed it within {seconds} s"
        answer = os.read(sys.stdin.fileno(), 80).decode(errors="replace")
    except (KeyboardInterrupt, OSError, TypeError, AttributeError):
        answer = ""  # an interrupt is a no that is told like one; a closed input is None
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
    return None if answer.strip().lower() in ("y", "yes") else "it was not confirmed"
