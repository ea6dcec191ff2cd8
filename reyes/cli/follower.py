"""`reyes follower`: make this host's kernel enforce the published ruleset."""

from pathlib import Path

import click

from reyes.cli import passes
from reyes.cli.options import config_option, load_config


@click.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option("--interactive", is_flag=True, help="Show the difference and ask before a commit.")
@click.option("--log-accept", is_flag=True, help="Log accepted packets (3 a minute, burst 10).")
@click.option("--log-drop", is_flag=True, help="Log denied packets (3 a minute, burst 10).")
@click.option(
    "--ruleset",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Use this signed file instead of the object on S3.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Accept a ruleset that lost most of the world, or that cost this host its health.",
)
@click.option(
    "--confirm",
    type=click.IntRange(1, 3600),
    metavar="SECONDS",
    help="Go back to the rules before unless you agree within this time.",
)
@click.option(
    "--splay",
    type=click.IntRange(0, 3600),
    metavar="SECONDS",
    default=0,
    help="Wait up to so long first; always the same time on one host.",
)
@click.option("--remove", is_flag=True, help="Take all of Reyes out of the kernel, and end.")
def command(config_path: Path, *, remove: bool, **flags: object) -> None:
    """Enforce the published ruleset on this host.

    Fetches and verifies the ruleset, compiles what concerns this host and commits it to the
    kernel in one instant. Whatever fails, the rules in force stay in force.
    """
    config = load_config(config_path)
    options = passes.Options(**flags)  # type: ignore[arg-type]  # click gives each the type of its option
    if remove:
        passes.remove(config)
    elif options.dry_run:
        passes.dry_run(config, options)
    elif passes.is_disabled(config.follower):
        click.echo(f"disabled by {config.follower.disable_file}: nothing is touched")
    else:
        passes.apply(config, options)
