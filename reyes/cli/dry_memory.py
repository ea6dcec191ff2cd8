"""The memory of a dry run: it looks at the state directory, and changes nothing there."""

from pathlib import Path

import click

from reyes.adapters.state import StateDirectory
from reyes.errors import ConfigError
from reyes.netfilter.live import Generation
from reyes.netfilter.settled import Settled
from reyes.state import State


class DryMemory:
    """What this user may read of a state directory; whatever is not there is forgotten."""

    def __init__(self, directory: Path) -> None:
        self._state = State()
        self._last_good: bytes | None = None
        memory = StateDirectory(directory).looking()
        try:
            self._state = memory.load()
            self._last_good = memory.last_good()
        except ConfigError as error:
            click.echo(f"note: replays cannot be recognised: {error.message}", err=True)

    def load(self) -> State:
        """Return what is remembered."""
        return self._state

    def last_good(self) -> bytes | None:
        """Return the signed object that was accepted last."""
        return self._last_good

    def settled(self) -> Settled | None:
        """Return nothing: a dry run works everything out."""
        return None

    def generation(self) -> Generation | None:
        """Return nothing: a dry run needs no way back."""
        return None

    def held_generation(self) -> Generation | None:
        """Return nothing: a dry run needs no way back."""
        return None

    def save(self, state: State) -> None:
        """Refuse."""
        raise _writes(state)

    def keep(self, blob: bytes) -> None:
        """Refuse."""
        raise _writes(blob)

    def keep_settled(self, settled: Settled) -> None:
        """Refuse."""
        raise _writes(settled)

    def keep_generation(self, generation: Generation | None) -> None:
        """Refuse."""
        raise _writes(generation)

    def hold_generation(self, generation: Generation) -> None:
        """Refuse."""
        raise _writes(generation)


def _writes(what: object) -> AssertionError:
    return AssertionError(f"a dry run writes {type(what).__name__}")
