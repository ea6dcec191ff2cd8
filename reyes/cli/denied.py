"""`reyes denied`: who was denied lately, and which group would have let him in."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from reyes.adapters.kernel_log import kernel_lines
from reyes.cli.explanation import packet_text, rule_text, source_text
from reyes.cli.identity import asked_host
from reyes.cli.options import config_option, echo_json, json_option, load_config
from reyes.cli.rulesets import (
    accepted_version,
    believed,
    believed_content,
    echo_notes,
    live_kernel,
)
from reyes.config import Config, FollowerConfig
from reyes.denied import Denial, Tally, explain_denial
from reyes.errors import ReyesError
from reyes.explain import Explanation
from reyes.netfilter.compiler import compile_policy
from reyes.netfilter.evaluate import Packet
from reyes.netfilter.log import LoggedPacket, parse_line
from reyes.policy import resolve_content
from reyes.ruleset import Content
from reyes.text import moment_text, quoted


@click.command("denied", short_help="Say who was denied lately, and what he lacked.")
@config_option
@click.option("--follow", is_flag=True, help="Go on with what comes in, until interrupted.")
@json_option("each sender and service with its explanation")
@click.argument("lines", metavar="[-]", required=False, type=click.Choice(["-"]))
def command(config_path: Path, follow: bool, as_json: bool, lines: str | None) -> None:
    """Say who was denied lately, his groups, and the groups that would have let him in.

    Reads the kernel's log, or lines of it from standard input if - is given.
    The log holds 3 packets a minute at most, so the counts are not those of all packets.
    """
    config = load_config(config_path)
    echo_notes(_silence(config.follower))
    explainer = _Explainer(config)
    read = sys.stdin if lines else kernel_lines(follow=follow)
    found = filter(None, map(parse_line, read))
    if follow:
        _follow(found, explainer, as_json=as_json)
        return
    tally = Tally()
    for one in found:
        tally.add(one)
    denials = list(tally.newest_first())
    if as_json:
        echo_json([_report(denial, explainer(denial)) for denial in denials])
    else:
        for denial in denials:
            click.echo(f"{_title(denial)}\n" + "\n".join(_lines(denial, explainer(denial))))
        if not denials:
            click.echo("the log tells of no packet that was denied")


def _silence(follower: FollowerConfig) -> Iterator[str]:
    """Say that denials are not logged: by the rules in force, else as configured."""
    live = live_kernel()
    # The log may be read with fewer rights than the rules.
    logged = live.logs_denied if live else follower.log_drop or not follower.enforce
    if not logged:
        by = "rules in force" if live else "configuration"
        yield (
            f"by the {by} denials are not logged: with follower.log_drop the next pass of"
            " `reyes follower` logs them, unless a rollback holds"
        )


def _follow(found: Iterable[LoggedPacket], explainer: "_Explainer", *, as_json: bool) -> None:
    """Print each packet as it comes, and explain it unless the same was said of it last."""
    tally = Tally()
    explained: dict[tuple[Packet, bool], list[str]] = {}
    try:
        for one in found:
            denial = tally.add(one)
            if as_json:
                click.echo(msgspec.json.encode(_report(denial, explainer(denial))))
                continue
            said = list(_lines(denial, explainer(denial)))
            key = denial.packet, denial.audit
            again = explained.get(key) == said
            explained[key] = said
            click.echo("\n".join([_title(denial)] if again else [_title(denial), *said]))
    except KeyboardInterrupt:
        return


class _Explainer:
    """What this host accepted last, ready for questions; who follows sees it change."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._version = accepted_version(config)
        content = believed_content(config, None)
        self._host = asked_host(config)
        self._go_by(content)

    def __call__(self, denial: Denial) -> Explanation:
        """Explain what becomes of such packets."""
        version = accepted_version(self._config)
        if version != self._version:
            self._version = version
            self._renew()
        return explain_denial(self._policy, self._dataplane, self._content, denial)

    def _renew(self) -> None:
        """Go by what was accepted meanwhile, if it says anything else and can be used."""
        try:
            content, notes = believed(self._config)
            if content == self._content:
                return
            echo_notes(notes)
            self._go_by(content)
        except ReyesError as error:
            echo_notes([f"explained by the ruleset before: {error.message}"])

    def _go_by(self, content: Content) -> None:
        policy = resolve_content(content, self._host)
        self._content, self._policy, self._dataplane = content, policy, compile_policy(policy)


class _Report(Struct, frozen=True, kw_only=True):
    """What `--json` prints of each; `last` is in seconds since the epoch."""

    count: int
    audit: bool
    last: float | None
    source: str
    destination: str
    service: str
    explanation: Explanation


def _report(denial: Denial, explanation: Explanation) -> _Report:
    return _Report(
        count=denial.count,
        audit=denial.audit,
        last=denial.last,
        source=str(denial.packet.source),
        destination=str(denial.packet.destination),
        service=packet_text(denial.packet),
        explanation=explanation,
    )


def _title(denial: Denial) -> str:
    packet = denial.packet
    what = "would be denied" if denial.audit else "denied"
    last = f", last at {moment_text(int(denial.last))}" if denial.last is not None else ""
    way = f"{packet_text(packet)} from {packet.source} to {packet.destination}"
    return f"{denial.count} x {what}: {way}{last}"


def _lines(denial: Denial, explanation: Explanation) -> Iterator[str]:
    groups = dict.fromkeys(
        f"{member.group} ({quoted(member.group_name)})" for member in explanation.source_is
    )
    if groups:
        yield f"  is in    {', '.join(groups)}"
    else:
        yield f"  is in    no group: no interface in the ruleset has {denial.packet.source}"
    if explanation.decision != "denied":
        yield f"  now      {explanation.decision}: the ruleset has changed since"
        return
    for miss in explanation.near_misses:
        yield f"  lacks    {source_text(miss)}: {rule_text(miss)}"
    if not explanation.near_misses:
        yield f"  lacks    nothing that helps: no rule is about {packet_text(denial.packet)}"
