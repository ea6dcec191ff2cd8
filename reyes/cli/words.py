"""What commands say beside what they do; nobody has to hear it."""

import os
import sys
from contextlib import suppress

import click


def say(words: str, *, err: bool = False) -> None:
    """Say what was done, or why not; a full disk or a closed pipe makes it no failure."""
    with suppress(OSError):
        click.echo(words, err=err)


def drop_unsaid() -> None:
    """Drop what could not be written: Python would try once more, and change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
