"""`reyes follower`: make this host's kernel enforce the published ruleset."""

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click

from reyes.adapters import clock
from reyes.adapters.deadline import deadline
from reyes.adapters.gpg import Gpg
from reyes.adapters.kernel import Kernel, families, raise_conntrack_max
from reyes.adapters.state import StateDirectory
from reyes.cli.identity import this_host
from reyes.cli.options import config_option, load_config
from reyes.cli.rulesets import FileSource, StoreSource
from reyes.config import Config, FollowerConfig
from reyes.errors import ConfigError
from reyes.follower import Follower, Memory, Prepared, nothing_live, payload_text
from reyes.host import Host
from reyes.netfilter.changes import describe_changes
from reyes.netfilter.live import LiveKernel
from reyes.state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says about this run."""

    dry_run: bool
    interactive: bool
    force: bool
    log_accept: bool
    log_drop: bool
    splay: int
    ruleset: Path | None


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
@click.option("--force", is_flag=True, help="Accept a ruleset that lost most of the world.")
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
    options = Options(**flags)  # type: ignore[arg-type]  # click gives each the type of its option
    if remove:
        _remove(config)
    elif not options.dry_run and _is_disabled(config.follower):
        click.echo(f"disabled by {config.follower.disable_file}: nothing is touched")
    elif options.dry_run:
        _dry_run(config, options)
    else:
        _apply(config, options)


def _apply(config: Config, options: Options) -> None:
    started = time.monotonic()
    memory = StateDirectory(Path(config.follower.state_directory))
    with memory.lock():
        with deadline(config.follower.deadline + options.splay):
            host = _host(config, options)
            _wait_for_turn(host.instance_id, options.splay)
            follower = _follower(config, memory, options.ruleset)
            verified = follower.obtain(force=options.force)
            prepared = follower.prepare(verified, host, follower.kernel.read())
        if options.interactive and prepared.plan.steps:
            _echo_changes(prepared, follower.kernel.read_members(), config.follower)
            click.confirm("Commit this?", abort=True, err=True)
        if _is_disabled(config.follower):
            click.echo(f"disabled by {config.follower.disable_file}: nothing is touched")
            return
        _raise_conntrack_max(config.follower)
        repaired = follower.commit(prepared)
    _log_outcome(prepared, repaired=repaired, seconds=time.monotonic() - started)


def _dry_run(config: Config, options: Options) -> None:
    """Do all but remember and commit, as far as this user's rights go."""
    memory = _readable_memory(Path(config.follower.state_directory))
    with deadline(config.follower.deadline):
        host = _host(config, options)
        follower = _follower(config, memory, options.ruleset)
        verified = follower.obtain(force=options.force, remember=False)
        live, members = _readable_kernel(follower)
        prepared = follower.prepare(verified, host, live)
    click.echo(payload_text(prepared, config.follower.filter_table))
    for omitted in prepared.policy.omitted:
        click.echo(
            f"# omitted: {omitted.group} rule {omitted.rule}: {omitted.what}: {omitted.reason}"
        )
    _echo_changes(prepared, members, config.follower)


def _remove(config: Config) -> None:
    memory = StateDirectory(Path(config.follower.state_directory))
    with memory.lock():
        plan = _follower(config, memory, None).remove()
    click.echo("removed all of Reyes" if plan.steps else "there was nothing of Reyes")
    if not _is_disabled(config.follower):
        click.echo(
            f"the next run applies it again, unless {config.follower.disable_file} exists",
            err=True,
        )


def _host(config: Config, options: Options) -> Host:
    host = this_host(config)
    return replace(
        host,
        log_accept=host.log_accept or options.log_accept,
        log_drop=host.log_drop or options.log_drop,
    )


def _follower(config: Config, memory: Memory, ruleset: Path | None) -> Follower:
    return Follower(
        config=config,
        source=StoreSource(config) if ruleset is None else FileSource(ruleset),
        verifier=Gpg(Path(config.signing.keyring_directory), config.signing.signing_key),
        memory=memory,
        kernel=Kernel(),
        now=clock.now,
    )


class _NoMemory:
    """The memory of a user who may not read the state directory: none."""

    def load(self) -> State:
        """Return a fresh state."""
        return State()

    def save(self, state: State) -> None:
        """Refuse: a dry run remembers nothing."""
        raise AssertionError(state)

    def last_good(self) -> bytes | None:
        """Return nothing."""
        return None

    def keep(self, blob: bytes) -> None:
        """Refuse: a dry run keeps nothing."""
        raise AssertionError(blob)


def _readable_memory(directory: Path) -> Memory:
    if os.access(directory, os.R_OK | os.X_OK):
        return StateDirectory(directory)
    click.echo(f"note: {directory} is not readable, so replays cannot be recognised", err=True)
    return _NoMemory()


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


def _wait_for_turn(instance_id: str, splay: int) -> None:
    """Spread hosts over the splay, each always at the same place."""
    digest = hashlib.sha256(instance_id.encode()).digest()
    time.sleep(splay * int.from_bytes(digest[:8]) / 2**64)


def _is_disabled(config: FollowerConfig) -> bool:
    return os.path.lexists(config.disable_file)


def _echo_changes(
    prepared: Prepared, members: Mapping[str, tuple[str, ...]], config: FollowerConfig
) -> None:
    changes = describe_changes(prepared.dataplane, prepared.live, members, config.filter_table)
    click.echo("# difference to the live kernel")
    click.echo("\n".join(changes) if changes else "none")


def _raise_conntrack_max(config: FollowerConfig) -> None:
    if config.nf_conntrack_max is not None:
        before = raise_conntrack_max(config.nf_conntrack_max)
        if before is not None:
            log.info("nf_conntrack_max raised from %d to %d", before, config.nf_conntrack_max)


def _log_outcome(prepared: Prepared, *, repaired: bool, seconds: float) -> None:
    dataplane = prepared.dataplane
    outcome = "repaired" if repaired else "applied" if prepared.plan.steps else "unchanged"
    for omitted in prepared.policy.omitted:
        log.debug(
            "omitted %s rule %d: %s: %s",
            omitted.group,
            omitted.rule,
            omitted.what,
            omitted.reason,
        )
    log.log(
        logging.WARNING if repaired else logging.INFO,
        "%s serial=%d rules=%d sets=%d members=%d omitted=%d seconds=%.2f",
        outcome,
        prepared.verified.ruleset.header.serial,
        sum(len(chain.rules) for table in dataplane.tables for chain in table.chains),
        len(dataplane.sets),
        sum(len(entry.members) for entry in dataplane.sets),
        len(prepared.policy.omitted),
        seconds,
    )
