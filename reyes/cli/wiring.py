"""What passes, dry runs and checks have in common: options, and a follower with its adapters."""

from collections.abc import Mapping
from pathlib import Path

import click
from msgspec import Struct
from msgspec.structs import replace

from reyes.adapters import clock
from reyes.adapters.gpg import Gpg
from reyes.adapters.kernel import Kernel
from reyes.config import Config, FollowerConfig
from reyes.follower import Follower
from reyes.netfilter.changes import describe_changes
from reyes.prepared import Prepared
from reyes.world import Memory, RulesetSource


class Options(Struct, frozen=True, kw_only=True):
    """What the command line says about this run."""

    dry_run: bool
    interactive: bool
    force: bool
    log_accept: bool
    log_drop: bool
    splay: int
    ruleset: Path | None
    confirm: int | None


def follower_of(config: Config, memory: Memory, source: RulesetSource) -> Follower:
    """Wire a follower with this host's kernel and keyring."""
    return Follower(
        config=config,
        source=source,
        verifier=Gpg(config.signing),
        memory=memory,
        kernel=Kernel(),
        now=clock.now,
    )


def with_logging(config: Config, options: Options) -> Config:
    """Let a host log what the command line asks for besides."""
    log_accept = config.follower.log_accept or options.log_accept
    log_drop = config.follower.log_drop or options.log_drop
    follower = replace(config.follower, log_accept=log_accept, log_drop=log_drop)
    return replace(config, follower=follower)


def echo_changes(
    prepared: Prepared, members: Mapping[str, tuple[str, ...]], config: FollowerConfig
) -> None:
    """Print how what is prepared differs from the live kernel."""
    changes = describe_changes(prepared.dataplane, prepared.live, members, config.filter_table)
    click.echo("# difference to the live kernel")
    click.echo("\n".join(changes) if changes else "none")
