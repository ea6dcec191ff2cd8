"""The memories of commands that commit nothing: they change nothing in the state directory."""

from pathlib import Path

import click

from reyes.adapters.state import StateDirectory
from reyes.errors import ConfigError
from reyes.netfilter.live import Generation
from reyes.state import KeptGeneration, State


class ReadOnlyMemory(StateDirectory):
    """A state directory for commands that need no way back, as they commit nothing."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, read_only=True)

    def generation(self, which: KeptGeneration) -> Generation | None:
        """Return a generation, but not the previous one: that is the way back."""
        return None if which == "previous" else super().generation(which)


class DryMemory(ReadOnlyMemory):
    """What this user may read of a state directory; whatever is not there is forgotten."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._loaded = State()
        self._kept: bytes | None = None
        try:
            self._loaded = super().load()
            self._kept = super().last_good()
        except ConfigError as error:
            click.echo(f"note: replays cannot be recognised: {error.message}", err=True)

    def load(self) -> State:
        """Return what is remembered."""
        return self._loaded

    def last_good(self) -> bytes | None:
        """Return the signed object that was accepted last."""
        return self._kept
