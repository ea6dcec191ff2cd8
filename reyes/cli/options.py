"""What several commands share: options, and what they lead to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from reyes.adapters.files import check_private
from reyes.config import MAX_CONFIG_CHARACTERS, Config, FollowerConfig, parse_config
from reyes.errors import ConfigError

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)

DEFAULT_CONFIG = "/etc/reyes/config.yaml"


class FilePath(click.Path):
    """A path on the command line; an empty one, of an unset variable, is the working directory."""

    def convert(  # noqa: D102 - as click's own
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        if value == "":
            self.fail("expected a path, got nothing", param, ctx)
        return super().convert(value, param, ctx)


config_option = click.option(
    "--config",
    "config_path",
    type=FilePath(path_type=Path, readable=False),  # load_config says what is wrong
    envvar="REYES_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)


interval_option = click.option(
    "--interval",
    type=click.IntRange(1, 86_400),
    metavar="SECONDS",
    help="Stay, and do this again and again.",
)


def json_option(what: str) -> Callable[[Decorated], Decorated]:
    """Make the `--json` flag of a command that prints `what`."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON.")


def echo_json(value: object) -> None:
    """Print a value as `--json` does."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)))


def load_config(path: Path) -> Config:
    """Read the configuration; ConfigError if it cannot be read or used."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CONFIG_CHARACTERS + 1)
    except (OSError, ValueError) as error:  # not UTF-8, or a path with a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        hint = "name the file with --config or REYES_CONFIG; examples/config.yaml is a start"
        if isinstance(error, PermissionError):
            hint = "run it as root, or as the user whom that file belongs to"
        raise ConfigError(f"cannot read the configuration {path}: {reason}", hint) from error
    # Others who can change what root reads could have any ruleset enforced.
    if os.geteuid() == 0:
        check_private(path)
    return parse_config(text, str(path))


def is_disabled(config: FollowerConfig) -> bool:
    """Tell whether the flag file is there."""
    return os.path.lexists(config.disable_file)
