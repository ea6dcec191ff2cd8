"""The memory of a dry run: it looks at the state directory, and changes nothing there."""

from pathlib import Path

import click

from reyes.adapters.state import StateDirectory
from reyes.errors import ConfigError
from reyes.netfilter.live import Generation
from reyes.state import KeptGeneration, State


class DryMemory(StateDirectory):
    """What this user may read of a state directory; whatever is not there is forgotten."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, read_only=True)
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

    def generation(self, which: KeptGeneration) -> Generation | None:
        """Return no rules before: a dry run needs no way back."""
        return None if which == "previous" else super().generation(which)
