"""`reyes show`: verify a ruleset and print it in words."""

from pathlib import Path

import click

from reyes.adapters.clock import now
from reyes.cli.describe import describe, describe_instance
from reyes.cli.options import FilePath, config_option, json_option, load_config
from reyes.cli.rulesets import fetch_genuine, problem_of
from reyes.cli.sources import FileSource, StoreSource
from reyes.ruleset import encode


@click.command("show", short_help="Verify a ruleset, and say in words what it holds.")
@config_option
@json_option("the signed document itself")
@click.option("--instance", metavar="ID", help="Only what concerns this instance.")
@click.argument("file", required=False, type=FilePath(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def command(
    context: click.Context,
    config_path: Path,
    as_json: bool,
    instance: str | None,
    file: Path | None,
) -> None:
    """Verify a signed ruleset, FILE or the one in S3, and print it.

    One that is expired, or made for another environment, is shown all the same: the problem is
    said first, and is the exit code. One with a bad signature is not shown.
    """
    if as_json and instance:
        raise click.UsageError("--json prints the whole document, without --instance")
    config = load_config(config_path)
    genuine = fetch_genuine(config, FileSource(file) if file else StoreSource(config))
    problem = problem_of(genuine, config)
    if problem:
        click.echo(f"reyes: {problem.message}", err=True)
        click.echo(f"hint: {problem.hint}", err=True)
    if as_json:
        click.echo(encode(genuine.ruleset.header, genuine.ruleset.content))
    else:
        at = int(now())
        lines = describe_instance(genuine, instance, at) if instance else describe(genuine, at)
        for line in lines:
            click.echo(line)
    if problem:
        context.exit(problem.exit_code)
