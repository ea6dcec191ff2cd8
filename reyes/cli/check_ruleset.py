"""`reyes check-ruleset`: what is doubtful about a ruleset."""

from pathlib import Path
from textwrap import TextWrapper

import click

from reyes.cli.options import FilePath, config_option, echo_json, json_option, load_config
from reyes.cli.rulesets import believed_content
from reyes.findings import find_for

DOUBTFUL = 1
"""The exit code if there is anything above a note."""

_BELOW = TextWrapper(
    80,
    initial_indent=" " * 10,
    subsequent_indent=" " * 10,
    break_long_words=False,
    break_on_hyphens=False,
)


@click.command("check-ruleset")
@config_option
@json_option("the findings")
@click.option("--unverified", is_flag=True, help="Believe FILE, whoever made it.")
@click.argument("file", required=False, type=FilePath(path_type=Path, dir_okay=False))
@click.pass_context
def command(
    context: click.Context,
    /,
    config_path: Path,
    *,
    as_json: bool,
    unverified: bool,
    file: Path | None,
) -> None:
    """Report what is doubtful about a ruleset.

    Looks at FILE, else at what this host accepted last, else at the object on S3.
    Exit code 0: nothing but notes; 1: warnings or worse.
    """
    if unverified and file is None:
        raise click.UsageError("--unverified needs FILE")
    config = load_config(config_path)
    content = believed_content(config, file, unverified=unverified)
    findings = find_for(config, content)
    if as_json:
        echo_json(findings)
    else:
        for one in findings:
            click.echo(f"{one.severity:8}  {one.kind}: {one.where}")
            click.echo(_BELOW.fill(one.message))
        click.echo(f"{len(findings)} findings")
    if any(one.severity != "note" for one in findings):
        context.exit(DOUBTFUL)
