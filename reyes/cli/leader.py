"""`reyes leader`: read EC2, sign what it means, publish it."""

import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import msgspec

import reyes
from reyes.adapters.clock import now
from reyes.adapters.deadline import deadline
from reyes.adapters.files import write_atomically
from reyes.adapters.gpg import Gpg
from reyes.cli.leader_recording import recorded
from reyes.cli.options import FilePath, config_option, interval_option, json_option, load_config
from reyes.cli.progress import progress_to
from reyes.cli.resident import ResidentPass, run_resident
from reyes.cli.words import say
from reyes.config import Config
from reyes.difference import Difference
from reyes.errors import ConfigError
from reyes.inventory import view
from reyes.leader import Outcome, Request, leader_config, publish_pass
from reyes.ruleset import Counts, Header
from reyes.text import moment_text

WORK_SECONDS = 60
"""What a pass may take besides its waiting: it signs and writes even after the largest world."""


@click.command("leader", short_help="Publish what EC2 says as one signed ruleset.")
@config_option
@click.option("--dry-run", is_flag=True, help="Do all but publish.")
@click.option(
    "--output",
    type=FilePath(dir_okay=False, path_type=Path),
    help="Also write the signed ruleset to this file.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Publish no matter how much vanished or is open to whole networks, and in the place of"
    " another fleet's ruleset.",
)
@interval_option
@json_option("what was done and what changed")
def command(
    config_path: Path,
    *,
    dry_run: bool,
    output: Path | None,
    force: bool,
    interval: int | None,
    as_json: bool,
) -> None:
    """Read the security groups of all sources, and publish them as one signed ruleset.

    Prints what changed.
    If another leader publishes meanwhile its ruleset stands, and the exit code is 0.
    """
    if output and not os.access(output.parent, os.W_OK | os.X_OK):
        hint = f"{output.parent} must be a writable directory"
        raise ConfigError(f"cannot write {output}", hint)
    if output and output.exists() and not output.is_file():
        raise ConfigError(f"{output} is no regular file", "--output puts a file in its place")
    one_pass = partial(_publish, dry_run=dry_run, output=output, force=force, as_json=as_json)
    if interval is None:
        one_pass(load_config(config_path))
        return
    if dry_run or force:
        name = "--dry-run" if dry_run else "--force"
        raise click.UsageError(f"{name} is for a single pass: leave --interval out")

    def make_pass() -> ResidentPass:
        config = load_config(config_path)
        longest = leader_config(config).deadline + WORK_SECONDS
        return ResidentPass(partial(one_pass, config), longest)

    run_resident(make_pass, interval)


def _publish(
    config: Config, *, dry_run: bool, output: Path | None, force: bool, as_json: bool
) -> None:
    """Make one pass, and print what it did."""
    generator = f"{socket.gethostname()} reyes/{reyes.__version__}"
    request = Request(now=now, generator=generator, dry_run=dry_run, force=force)
    outcome = recorded(config, partial(_run, config, request), leaves_traces=not dry_run)
    report = _report(config, outcome)
    text = msgspec.json.encode(report).decode() if as_json else "\n".join(_lines(report))
    try:
        if output:
            write_atomically(output, outcome.envelope.blob, 0o644)
    finally:
        # What is published stays so, whoever hears of it.
        tell = click.echo if dry_run else say
        tell(text)
    if outcome.not_archived:
        raise outcome.not_archived


def _run(config: Config, request: Request) -> Outcome:
    """Wire the adapters to the pass."""
    from reyes.adapters.ec2 import Ec2Reader
    from reyes.adapters.s3 import S3Store

    section = leader_config(config)
    understand = partial(
        view,
        matching=section.group_matching,
        excluded_group_names=frozenset(section.excluded_group_names),
    )
    with progress_to(sys.stderr) as progress, deadline(section.deadline):
        return publish_pass(
            config,
            request,
            store=S3Store(config.s3),
            read=Ec2Reader(section.sources, understand, progress),
            signer=Gpg(config.signing),
        )


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints; `previous_` fields are null where no genuine ruleset was published."""

    status: str
    environment: str
    object: str
    serial: int
    generated_at: int
    not_after: int
    content_sha256: str
    counts: Counts
    previous_serial: int | None
    previous_counts: Counts | None
    difference: Difference


def _report(config: Config, outcome: Outcome) -> _Report:
    header = outcome.ruleset.header
    previous: Header | None = outcome.previous.header if outcome.previous else None
    return _Report(
        status=outcome.status,
        environment=header.environment,
        object=f"s3://{config.s3.bucket}/{config.s3.key}",
        serial=header.serial,
        generated_at=header.generated_at,
        not_after=header.not_after,
        content_sha256=outcome.ruleset.content_sha256,
        counts=header.counts,
        previous_serial=previous.serial if previous else None,
        previous_counts=previous.counts if previous else None,
        difference=outcome.difference,
    )


_TITLES = {
    "published": "published ruleset {serial} at {object}, valid until {end}",
    "superseded": "superseded: another leader has published at {object} meanwhile",
    "dry run": "dry run: ruleset {serial} for {object} would be valid until {end}",
}


def _lines(report: _Report) -> Iterator[str]:
    yield _TITLES[report.status].format(
        serial=report.serial, object=report.object, end=moment_text(report.not_after)
    )
    yield from (
        f"{name:>12} {number}" for name, number in msgspec.structs.asdict(report.counts).items()
    )
    if report.previous_serial is None:
        yield "there is no ruleset to compare with:"
    elif report.difference:
        yield f"changes since ruleset {report.previous_serial}:"
    else:
        yield f"nothing changed since ruleset {report.previous_serial}"
    yield from report.difference.lines()
