"""Whether this host still reaches what it must reach: asked before and after a commit."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from reyes.adapters.deadline import deadline
from reyes.adapters.threads import side_by_side
from reyes.errors import ConfigError, ReyesError, UnreachableError

PROBE_SECONDS = 3
_PAUSE_SECONDS = 0.5


class Health:
    """The probes that counted before a commit, and the question whether they still do.

    `ask_source` asks the ruleset's source anew; it raises UnreachableError if no way leads there.
    """

    def __init__(self, probes: Sequence[str], ask_source: Callable[[], object] | None) -> None:
        self._probes = [probe for probe, connects in _try_all(probes) if connects]
        self._ask_source = ask_source

    def trouble(self, seconds: float) -> str | None:
        """Return what is still wrong after so many seconds; None as soon as nothing is."""
        end = time.monotonic() + seconds
        while True:
            trouble = self._look(end)
            if trouble is None or time.monotonic() >= end:
                return trouble
            time.sleep(_PAUSE_SECONDS)

    def _look(self, end: float) -> str | None:
        for probe, connects in _try_all(self._probes):
            if not connects:
                return f"the probe {probe} does not answer any more"
        try:
            if self._ask_source:
                with deadline(max(_PAUSE_SECONDS, end - time.monotonic())):
                    self._ask_source()
        except (UnreachableError, ConfigError) as error:
            return f"the ruleset's source is not reached any more: {error.message}"
        except ReyesError:
            pass  # an answer that is no ruleset came over a path that works
        return None


def _try_all(probes: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Try all side by side: those that do not answer take no longer together than one."""
    trying = side_by_side([partial(_connects, probe) for probe in probes])
    return zip(probes, trying(), strict=True)


def _connects(probe: str) -> bool:
    host, _, port = probe.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False
