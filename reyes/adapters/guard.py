"""What keeps a commit from locking anybody out: rehearsal, dead man's switch, health, people."""

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NoReturn

from reyes.adapters.commands import COMMAND_SECONDS
from reyes.adapters.deadman import armed
from reyes.adapters.health import Health
from reyes.adapters.rehearsal import rehearse
from reyes.config import FollowerConfig
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.live import LiveKernel

_AGAIN_SECONDS = 5
"""So long a store may take to answer with the rules before, until it counts as silent, too."""

_ENDINGS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""What a closed terminal, Ctrl-C and `kill` send: a no, while people are asked."""

_NO = "it was not confirmed"


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
    """Ask at the terminal; what is no whole `yes` in time is a no, and so is nobody there.

    A terminal that is closed is first a closed input, then a signal of its own and one of its
    shell: nothing may cut short what follows a no, nor the commands that it takes.
    """
    trouble = None
    try:
        before = {ending: signal.signal(ending, _refuse) for ending in _ENDINGS}
        trouble = _answer(seconds)
        after = dict.fromkeys(_ENDINGS, signal.SIG_IGN) if trouble else before
        for ending, handler in after.items():
            signal.signal(ending, handler)
    except KeyboardInterrupt:
        trouble = trouble or _NO
    return trouble


def _refuse(*_: object) -> NoReturn:
    """Take a signal for a no, and be deaf from then on."""
    for ending in _ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


def _answer(seconds: int) -> str | None:
    try:
        sys.stderr.write(f"Can you still open new connections? Type yes within {seconds} s: ")
        sys.stderr.flush()
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        if not ready:
            return f"nobody confirmed it within {seconds} s"
        answer = os.read(sys.stdin.fileno(), 80).decode(errors="replace")
    except (OSError, TypeError, AttributeError):
        return _NO  # a closed input is None
    return None if answer.strip().lower() in ("y", "yes") else _NO
