"""`reyes rollback`: back to the rules before, and stay there."""

import logging
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import click
from msgspec.structs import replace

from reyes.adapters.clock import now
from reyes.adapters.guard import CommitGuard
from reyes.adapters.kernel import Kernel, families
from reyes.adapters.state import WAY_OUT_SECONDS, StateDirectory
from reyes.cli.options import config_option, load_config
from reyes.cli.recording import record_outcome
from reyes.cli.words import say
from reyes.errors import ConfigError, KernelError, ReyesError
from reyes.net import Family
from reyes.rollback import OTHERS_STAY_AWAY, roll_back
from reyes.text import moment_text

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

log = logging.getLogger(__name__)


@click.command("rollback", short_help="Go back to the rules before the last change.")
@config_option
@click.option(
    "--until",
    metavar="TIME",
    help="After so long try again what is published: 90m, 12h, 2d, or a time such as"
    " 2030-01-31T06:00Z.",
)
@click.option("--force", is_flag=True, help="Go back also to a time without rules of Reyes.")
def command(config_path: Path, until: str | None, *, force: bool) -> None:
    """Bring the rules back that were in force before the last change, at once.

    They stay until a ruleset with a higher serial and another content is there, or until TIME.
    Said again it changes nothing but TIME; `reyes follower --force` ends it.
    """
    config = load_config(config_path)
    end = _moment(until, int(now())) if until is not None else 0
    memory = StateDirectory(Path(config.follower.state_directory))
    on_trial = None
    # Whoever has rules on trial means these, however the run ends that holds the lock.
    with suppress(ConfigError):  # it may end as we look, and what is wrong is told within the lock
        on_trial = memory.as_read_only().generation("trial")
    with memory.lock(config.follower.deadline + WAY_OUT_SECONDS):
        started = monotonic()
        _refuse_ours_elsewhere()
        guard = CommitGuard(replace(config.follower, probes=()), None)
        filter_table = config.follower.filter_table
        back = roll_back(
            memory, Kernel(), guard, filter_table, end, on_trial=on_trial, force=force
        )
        record_outcome(config.follower, memory, "rolled back", started)
    limit = f" or {moment_text(end)}" if end else ""
    say(f"rolled back; this holds until a ruleset with other content{limit}")
    if back.refused:
        log.warning(OTHERS_STAY_AWAY, back.refused)
    if not back.rules.judges:
        say("there were no rules of Reyes before: nothing is judged now", err=True)
    if back.rules.only_audits:
        say("these rules are of audit mode: what would be denied is let through", err=True)


def _refuse_ours_elsewhere() -> None:
    """Refuse where packets would go on to meet rules of ours in the other backend of iptables."""
    if any(_holds_ours_elsewhere(family) for family in families()):
        raise KernelError(
            "there are rules of Reyes in the backend of iptables that this host does not use,"
            " and a rollback would leave them in force",
            "`reyes follower --remove` takes them out of both",
        )


def _holds_ours_elsewhere(family: Family) -> bool:
    try:
        others = [kernel.read(strict=False) for kernel in Kernel.of_other_backend(family)]
    except ReyesError as error:
        # Tables that cannot be read keep nobody from the way out.
        log.warning("the other backend of iptables cannot be looked at: %s", error.message)
        return False
    return any(table.own_chains or table.jumps for other in others for table in other.tables)


def _moment(text: str, now: int) -> int:
    span = re.fullmatch(r"(\d{1,6})([smhd])", text)
    try:
        end = now + int(span[1]) * _UNITS[span[2]] if span else _epoch(text)
    except (ValueError, OverflowError) as error:
        raise click.UsageError(
            f"--until: expected 90m, 12h, 2d or a time, got {text!r}"
        ) from error
    if end <= now:
        raise click.UsageError(f"--until: {text} is not in the future")
    return end


def _epoch(text: str) -> int:
    """Read ISO 8601; without an offset it is UTC."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
