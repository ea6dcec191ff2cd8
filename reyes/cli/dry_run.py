"""`reyes follower --dry-run`: print what would be done."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from reyes.adapters.clock import now
from reyes.adapters.deadline import deadline
from reyes.adapters.kernel import families
from reyes.cli.identity import known_host
from reyes.cli.memories import DryMemory
from reyes.cli.options import is_disabled
from reyes.cli.sources import FileSource, StoreSource
from reyes.cli.wiring import Options, echo_changes, follower_of, with_logging
from reyes.config import Config
from reyes.errors import ConfigError
from reyes.follower import Follower
from reyes.netfilter.live import LiveKernel, nothing_live
from reyes.netfilter.plan import payload_text
from reyes.prepared import Prepared
from reyes.rollback import is_held
from reyes.state import State
from reyes.status import hold_text


def dry_run(config: Config, options: Options) -> None:
    """Do all but remember and commit, as far as this user's rights go."""
    config = with_logging(config, options)
    memory = DryMemory(Path(config.follower.state_directory))
    with deadline(config.follower.deadline):
        host = known_host(config, memory)
        source = FileSource(options.ruleset) if options.ruleset else StoreSource(config)
        follower = follower_of(config, memory, source)
        acceptance = follower.acceptance
        verified = acceptance.accept(acceptance.fetch(), host, force=options.force, remember=False)
        live, members = _readable_kernel(follower)
        prepared = follower.prepare(verified, host, live)
    click.echo(payload_text(prepared.dataplane, live, config.follower.filter_table))
    for omitted in prepared.policy.omitted:
        click.echo(f"# omitted: {omitted}")
    echo_changes(prepared, members, config.follower)
    for reason in _reasons_against(config, memory.load(), prepared, force=options.force):
        click.echo(f"note: a pass would not commit this now: {reason}", err=True)


def _reasons_against(
    config: Config, state: State, prepared: Prepared, *, force: bool
) -> Iterator[str]:
    """Say why a pass would not commit what was prepared."""
    if is_disabled(config.follower):
        yield f"{config.follower.disable_file} exists"
    if state.hold and not force and is_held(state.hold, prepared.verified.ruleset, now()):
        yield hold_text(state.hold)
    if state.unhealthy == prepared.fingerprint and not force:
        yield "these rules cost the host its health before, or were not agreed to"


def _readable_kernel(follower: Follower) -> tuple[LiveKernel, Mapping[str, tuple[str, ...]]]:
    try:
        return follower.kernel.read(), follower.kernel.read_members()
    except ConfigError as error:
        click.echo(
            f"note: the live kernel cannot be read, so the difference is to an empty one"
            f" ({error.message})",
            err=True,
        )
        return nothing_live(families()), {}
