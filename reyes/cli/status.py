"""`reyes status`: what this host's follower knows and did last."""

from pathlib import Path

import click
from msgspec.structs import replace

from reyes.adapters.clock import now
from reyes.adapters.state import StateDirectory
from reyes.cli.options import config_option, echo_json, is_disabled, json_option, load_config
from reyes.errors import ConfigError
from reyes.status import status_lines


@click.command("status", short_help="Say what the last pass did, and what is in force.")
@config_option
@json_option("the status")
def command(config_path: Path, as_json: bool) -> None:
    """Say what the last pass of this host's follower left behind.

    Any user may ask who may read the configuration; the kernel is not looked at, see `check`.
    """
    config = load_config(config_path)
    status = StateDirectory(Path(config.follower.state_directory)).status()
    if status is None:
        raise ConfigError(
            f"no follower has left a status in {config.follower.state_directory}",
            "each pass of `reyes follower` leaves one; follower.state_directory says where",
        )
    status = replace(status, disabled=is_disabled(config.follower))
    if as_json:
        echo_json(status)
    else:
        click.echo("\n".join(status_lines(status, int(now()))))
