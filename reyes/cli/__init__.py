"""The `reyes` command: its subcommands, and the one boundary from errors to exit codes."""

import atexit
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

import reyes
from reyes.cli.logs import configure_logs
from reyes.cli.words import drop_unsaid, say
from reyes.errors import ConfigError, ReyesError

COMMANDS = {
    "leader": "reyes.cli.leader",
    "follower": "reyes.cli.follower",
    "rollback": "reyes.cli.rollback",
    "status": "reyes.cli.status",
    "check": "reyes.cli.check",
    "denied": "reyes.cli.denied",
    "keygen": "reyes.cli.keygen",
    "show": "reyes.cli.show",
    "explain": "reyes.cli.explain",
    "check-ruleset": "reyes.cli.check_ruleset",
    "check-config": "reyes.cli.check_config",
    "demo": "reyes.cli.demo",
}
"""Each command's module, imported only when it is asked for: it must define `command`."""


class _LazyGroup(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        _open_missing_streams()
        # Whoever started this may ignore it; then the kernel keeps no exit code of any command.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            with _ending_as_by_sigpipe():
                return super().main(*args, **kwargs)
        finally:
            drop_unsaid()

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _ending_as_by_sigpipe():
            return super().make_context(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        command = importlib.import_module(COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)  # noqa: S101 - a slip in COMMANDS is a bug
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _ending_as_by_sigpipe():
                return super().invoke(ctx)
        except OSError as error:
            # A file or a right that this host must have, where nobody had better words for it.
            where = f" {error.filename}" if error.filename else ""
            say(f"reyes: the system refuses{where}: {error.strerror or error}", err=True)
            ctx.exit(ConfigError.exit_code)
        except ReyesError as error:
            if ctx.params["verbose"]:
                traceback.print_exc()
            say(f"reyes: {error.message}", err=True)
            if error.hint:
                say(f"hint: {error.hint}", err=True)
            ctx.exit(error.exit_code)


@contextmanager
def _ending_as_by_sigpipe() -> Iterator[None]:
    """End where nobody reads the answer with what a shell says of a program that SIGPIPE ended."""
    try:
        yield
    except BrokenPipeError:  # click would make it 1
        sys.exit(128 + signal.SIGPIPE)


def _open_missing_streams() -> None:
    """Let standard streams that are closed lead nowhere: else the next files would become them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one; children are to have it as well.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - takes no keyword
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, os.fdopen(number, mode, errors="replace", closefd=False))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(reyes.__version__, prog_name="reyes")
@click.option("-v", "--verbose", is_flag=True, help="Log details, and tracebacks of errors.")
def main(verbose: bool) -> None:
    """Give packets that cross a VPN their EC2 security groups back.

    A leader reads EC2 and publishes one signed ruleset; a follower on every host enforces it.
    """
    configure_logs(verbose=verbose)
    # A ruleset is a hundred thousand objects without a cycle: looking for cycles in them, over
    # and over while they are made, costs a third of a run, and once more at its end a tenth.
    gc.disable()
    atexit.register(gc.freeze)
