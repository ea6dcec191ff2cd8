"""`reyes follower`: make this host's kernel enforce the published ruleset."""

from pathlib import Path

import click

from reyes.cli.dry_run import dry_run
from reyes.cli.options import FilePath, config_option, interval_option, load_config
from reyes.cli.passes import FollowerPass, longest_pass
from reyes.cli.removal import take_out
from reyes.cli.resident import ResidentPass, run_resident
from reyes.cli.wiring import Options
from reyes.cli.words import say
from reyes.config import FollowerConfig
from reyes.errors import ConfigError


@click.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option("--interactive", is_flag=True, help="Show the difference and ask before a commit.")
@click.option("--log-accept", is_flag=True, help="Log accepted packets (3 a minute, burst 10).")
@click.option("--log-drop", is_flag=True, help="Log denied packets (3 a minute, burst 10).")
@click.option(
    "--ruleset",
    type=FilePath(path_type=Path, dir_okay=False),
    help="Use this signed file instead of the object on S3.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Accept a ruleset that lost most of the world, that cost this host its health, or against"
    " which a rollback holds.",
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
@interval_option
@click.option("--boot", is_flag=True, help="Use what was accepted last, before the network is up.")
@click.option(
    "--remove",
    is_flag=True,
    help="Take all of Reyes out of the kernel, and end; take the group that lets in all of the"
    " tunnel off this host before.",
)
def command(
    config_path: Path, *, interval: int | None, boot: bool, remove: bool, **flags: object
) -> None:
    """Enforce the published ruleset on this host.

    Fetches and verifies the ruleset, compiles what concerns this host and commits it to the
    kernel in one instant. Whatever fails, the rules in force stay in force.
    """
    options = Options(**flags)  # type: ignore[arg-type]  # click gives each its option's type
    _refuse_contradictions(options, interval=interval, boot=boot, remove=remove)
    if interval is not None:
        run_resident(lambda: _resident_pass(config_path, options), interval)
        return
    if remove:
        take_out(_settings(config_path))
        return
    config = load_config(config_path)
    if options.dry_run:
        dry_run(config, options)
    elif boot:
        FollowerPass(config, options).boot()
    else:
        FollowerPass(config, options)()


def _settings(config_path: Path) -> FollowerConfig:
    """Read what the way out needs; with a configuration that is broken it is the defaults."""
    try:
        return load_config(config_path).follower
    except ConfigError as error:
        say(f"taking the defaults: {error.message}", err=True)
        return FollowerConfig()


def _resident_pass(config_path: Path, options: Options) -> ResidentPass:
    config = load_config(config_path)
    return ResidentPass(FollowerPass(config, options), longest_pass(config.follower))


def _refuse_contradictions(
    options: Options, *, interval: int | None, boot: bool, remove: bool
) -> None:
    ways = {
        "--interval": interval is not None,
        "--boot": boot,
        "--remove": remove,
        "--dry-run": options.dry_run,
    }
    chosen = [name for name, given in ways.items() if given]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)} exclude each other")
    asks_people = options.interactive or options.confirm is not None
    if asks_people and chosen:
        raise click.UsageError(f"{chosen[0]} asks nobody: leave --interactive and --confirm out")
    if interval is not None and options.force:
        raise click.UsageError("--force is for a single pass: leave --interval out")
    if interval is not None and options.splay:
        raise click.UsageError("--interval varies by itself: leave --splay out")
    if options.ruleset is not None and boot:
        raise click.UsageError("--boot uses what was accepted last: leave --ruleset out")
