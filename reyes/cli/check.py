"""`reyes check`: is this host as it should be? For monitoring; it only looks."""

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import click
from msgspec.structs import replace

from reyes.adapters.clock import now
from reyes.adapters.conntrack import is_loose
from reyes.check import (
    AUDIT_MODE,
    EXIT_CODES,
    Limits,
    Problem,
    drift_problems,
    jump_problems,
    status_problems,
    verdict,
    verdict_line,
)
from reyes.cli.identity import remembered_host
from reyes.cli.memories import ReadOnlyMemory
from reyes.cli.options import config_option, echo_json, is_disabled, json_option, load_config
from reyes.cli.rulesets import live_kernel
from reyes.cli.sources import StoreSource
from reyes.cli.tracking import cuts_off
from reyes.cli.wiring import follower_of
from reyes.config import Config
from reyes.errors import ConfigError, HostUnknownError, ReyesError
from reyes.follower import Follower
from reyes.host import Host
from reyes.netfilter.live import Generation, LiveKernel
from reyes.netfilter.plan import FilterTable, drifted_sets, plan_return
from reyes.prepared import Prepared
from reyes.rollback import is_held
from reyes.settling import is_intact
from reyes.state import State
from reyes.status import Status
from reyes.trust import VerifiedRuleset
from reyes.world import Kernel

LOOKS = 3
"""A pass may end while we look: then we look again, so often at most."""

NO_RULES = Problem("critical", "no ruleset is in force")
LOOSE = Problem(
    "warning", "established: strict needs nf_conntrack_tcp_loose to be 0: see the last pass's log"
)


@click.command("check", short_help="Say, for monitoring, whether all is well on this host.")
@config_option
@click.option(
    "--warning",
    type=click.IntRange(1),
    metavar="SECONDS",
    default=Limits().warning,
    show_default=True,
    help="So long without a pass is worth a warning.",
)
@click.option(
    "--critical",
    type=click.IntRange(1),
    metavar="SECONDS",
    default=Limits().critical,
    show_default=True,
    help="So long without a pass is critical.",
)
@json_option("the verdict, all problems and the status")
@click.pass_context
def command(
    context: click.Context, config_path: Path, warning: int, critical: int, as_json: bool
) -> None:
    """Compare this host with what it should be, and change nothing.

    Looks at the last pass and compares the kernel with the last good ruleset, for which it must
    be root.
    Exit code 0: all is well; 1: warning; 2: critical; 3: unknown, such as for lack of rights.
    """
    status: Status | None = None
    moment = int(now())
    try:
        config = load_config(config_path)
        status, problems = _look(config, moment, Limits(warning=warning, critical=critical))
    except ConfigError as error:
        problems = [Problem("unknown", error.message)]
    found = verdict(problems)
    if as_json:
        echo_json({"verdict": found, "problems": problems, "status": status})
    else:
        click.echo(" ".join(verdict_line(problems, status, moment).split()))
    context.exit(EXIT_CODES[found])


def _look(config: Config, moment: int, limits: Limits) -> tuple[Status | None, list[Problem]]:
    memory = ReadOnlyMemory(Path(config.follower.state_directory))
    status = memory.status()
    disabled = is_disabled(config.follower)
    if status:
        status = replace(status, disabled=disabled)
    problems = list(status_problems(status, moment, limits))
    if not (status and status.applied) and (live := live_kernel()) and live.only_audits:
        problems.append(AUDIT_MODE)  # a rollback's rules, or a status that was lost
    if not disabled:
        problems += _kernel_problems(config, memory)
        if cuts_off(config.follower) and is_loose():
            problems.append(LOOSE)
    elif os.geteuid() == 0 and (live := live_kernel()):
        problems += [replace(each, severity="warning") for each in _not_asked(live)]
    return status, problems


def _kernel_problems(config: Config, memory: ReadOnlyMemory) -> list[Problem]:
    """Compare the kernel with what was put in force; again if a pass ended meanwhile."""
    problems: list[Problem] = []
    try:
        for _ in range(LOOKS):
            state = memory.load()
            problems = _problems_at(config, memory, state)
            if memory.load() == state:
                break
    except ConfigError as error:
        return [Problem("unknown", error.message)]
    holder = memory.holder() if problems else None
    if holder is None:
        return problems
    at_work = f"a run is at work (process {holder}), perhaps with rules on trial"
    return [
        replace(each, severity="warning", message=f"{at_work}: {each.message}")
        for each in problems
    ]


def _problems_at(config: Config, memory: ReadOnlyMemory, state: State) -> list[Problem]:
    try:
        return list(_differences(config, memory, state))
    except ConfigError:
        raise
    except ReyesError as error:
        return [Problem("critical", error.message)]


def _differences(config: Config, memory: ReadOnlyMemory, state: State) -> Iterator[Problem]:
    follower, settings = follower_of(config, memory, StoreSource(config)), config.follower
    kernel = follower.kernel
    live = kernel.read()
    try:
        verified = follower.acceptance.last_good()
    except ReyesError as error:
        unknown = isinstance(error, ConfigError)
        yield Problem("unknown" if unknown else "critical", error.message)
        yield from _unlike_before(memory, live)  # a host may be open meanwhile
        return
    if is_held(state.hold, verified.ruleset, now()):
        yield from _held_differences(
            kernel, memory.generation("held"), live, settings.filter_table
        )
        return
    if state.applied is None and not state.hold:
        yield NO_RULES
        return
    host = remembered_host(config, state.identity)
    try:
        prepared = _prepared(follower, verified, host, live)
    except HostUnknownError as error:
        yield Problem("warning", error.message)
        yield from _unlike_before(memory, live)
        return
    if prepared.fingerprint != state.applied:
        # Rules of another ruleset or configuration, or of a rollback that holds no longer; the
        # next pass tries these, or the last failed.
        yield from _unlike_before(memory, live)
        return
    members = kernel.read_members()
    dataplane = prepared.dataplane
    if prepared.plan.steps or not drifted_sets(members).isdisjoint(e.name for e in dataplane.sets):
        yield from drift_problems(dataplane, live, members, settings.filter_table)


def _unlike_before(memory: ReadOnlyMemory, live: LiveKernel) -> Iterator[Problem]:
    """Compare the kernel with what Reyes left there, whatever it should be now."""
    problems = list(_not_asked(live))
    yield from problems
    if not problems and not is_intact(memory, live):
        message = "drift: the kernel's rules are not those that the last good pass left there"
        yield Problem("critical", message)


def _not_asked(live: LiveKernel) -> Iterator[Problem]:
    """Say where packets do not come to our rules, or not first."""
    if live.judges:
        yield from jump_problems(live)
    else:
        yield NO_RULES


def _held_differences(
    kernel: Kernel, held: Generation | None, live: LiveKernel, filter_table: FilterTable
) -> Iterator[Problem]:
    if held is None:
        yield Problem("critical", "what the rollback brought back is forgotten")
        return
    if not held.kernel.judges:
        yield Problem("critical", "the rollback brought back a time without rules of Reyes")
    drifted = held.referenced_sets & drifted_sets(kernel.read_members())
    if drifted or plan_return(held, live, filter_table).steps:
        message = "drift: the kernel's rules are not those that the rollback brought back"
        yield Problem("critical", message)


def _prepared(
    follower: Follower, verified: VerifiedRuleset, host: Host, live: LiveKernel
) -> Prepared:
    """Compile the ruleset as it is in force: that follower may have been told to log more."""
    logging = product((False, True), repeat=2)
    hosts = (host, *(replace(host, log_drop=drop, log_accept=accept) for drop, accept in logging))
    all_prepared = (follower.prepare(verified, variant, live) for variant in dict.fromkeys(hosts))
    first = next(all_prepared)
    if not first.plan.changes_rules:
        return first
    return next((each for each in all_prepared if not each.plan.changes_rules), first)
