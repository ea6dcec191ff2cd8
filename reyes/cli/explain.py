"""`reyes explain`: what becomes of a packet on a host, and why; who may reach an instance."""

from collections.abc import Iterator
from pathlib import Path

import click

from reyes.cli.explanation import explanation_lines, omitted_lines, reach_lines, use_lines
from reyes.cli.identity import asked_host
from reyes.cli.options import FilePath, config_option, echo_json, json_option, load_config
from reyes.cli.question import Question, asked_packet
from reyes.cli.rulesets import believed_content
from reyes.explain import explain, may_reach, members_at
from reyes.net import Address
from reyes.netfilter.compiler import compile_policy
from reyes.policy import HostPolicy, resolve_content
from reyes.ruleset import Content
from reyes.uses import group_uses

DENIED = 1
"""The exit code of a packet that is denied."""


@click.command("explain")
@config_option
@click.option("--from", "source", metavar="ADDRESS", help="Where the packet comes from.")
@click.option("--to", "destination", metavar="ADDRESS", help="Where it goes; else the host.")
@click.option("--proto", metavar="NAME|NUMBER", help="tcp, udp, icmp, icmpv6 or a number.")
@click.option("--port", type=click.IntRange(0, 65535), help="The destination port.")
@click.option("--icmp", metavar="TYPE[/CODE]", help="The ICMP message; else an echo request.")
@click.option("--instance", metavar="ID", help="The host that is asked about; else this one.")
@click.option("--group", metavar="NAME|ID", help="Say where this security group is used.")
@click.option("--interface", metavar="NAME", help="Where it arrives; else where it is judged.")
@click.option(
    "--ipsec/--clear",
    default=None,
    help="Whether it came out of IPsec on the host; if not said: as the scope asks for.",
)
@click.option(
    "--ruleset",
    type=FilePath(path_type=Path, dir_okay=False),
    help="Use this signed file; else what this host accepted last, else the object on S3.",
)
@click.option("--unverified", is_flag=True, help="Believe the file of --ruleset, whoever made it.")
@json_option("the explanation")
@click.pass_context
def command(context: click.Context, /, config_path: Path, **options: object) -> None:
    """Say what becomes of a new packet on a host, and why.

    Exit code 0: it is accepted or not judged; 1: it is denied.
    Without --from, --instance lists all that may reach that instance. --group says where a group
    is used.
    """
    asked = Question(**options)  # type: ignore[arg-type]  # click gives each the type of its option
    config = load_config(config_path)
    if asked.source is None and asked.instance is None and asked.group is None:
        raise click.UsageError("say --from ADDRESS for a packet, or --instance, or --group")
    for name, given in (("--from", asked.source), ("--instance", asked.instance)):
        if asked.group is not None and given is not None:
            raise click.UsageError(f"--group and {name} exclude each other")
    of_a_packet = asked.destination, asked.proto, asked.icmp, asked.port
    arrival = asked.interface, asked.ipsec
    if asked.source is None and any(value is not None for value in (*of_a_packet, *arrival)):
        raise click.UsageError(
            "--to, --proto, --port, --icmp, --interface and --ipsec need --from ADDRESS"
        )
    if asked.unverified and asked.ruleset is None:
        raise click.UsageError("--unverified needs the file: --ruleset FILE")
    packet_to = asked_packet(asked) if asked.source is not None else None
    content = believed_content(config, asked.ruleset, unverified=asked.unverified)
    if asked.group is not None:
        uses = tuple(group_uses(content, asked.group))
        if not uses:
            raise click.UsageError(f"--group: the ruleset holds no group {asked.group!r}")
        _print(asked, uses, (line for use in uses for line in use_lines(use)))
        return
    policy = resolve_content(content, asked_host(config, asked.instance))
    if packet_to is None:
        _print_reach(asked, policy)
        return
    packet = packet_to(policy)
    _refuse_others(policy, content, packet.destination)
    explanation = explain(policy, compile_policy(policy), content, packet)
    _print(asked, explanation, explanation_lines(explanation, packet))
    if explanation.decision == "denied":
        context.exit(DENIED)


def _refuse_others(policy: HostPolicy, content: Content, destination: Address) -> None:
    """Refuse a packet that another host gets; what goes to nobody's address this one judges."""
    if any(destination in held for own in policy.interfaces for held in own.addresses):
        return
    owners = {member.interface: member.instance for member in members_at(content, destination)}
    whose = ", ".join(instance or f"{eni}, of no instance" for eni, instance in owners.items())
    ask = " or ".join(f"--instance {instance}" for instance in owners.values() if instance)
    if owners:
        way = f": ask with {ask}" if ask else ""
        raise click.UsageError(f"--to: {destination} is of {whose}{way}")


def _print_reach(asked: Question, policy: HostPolicy) -> None:
    reach = tuple(may_reach(policy))
    lines = (line for interface, grants in reach for line in reach_lines(interface, grants))
    as_data = {
        "interfaces": {interface.id: grants for interface, grants in reach},
        "omitted": policy.omitted,
    }
    _print(asked, as_data, (*lines, *omitted_lines(policy.omitted)))


def _print(asked: Question, value: object, lines: Iterator[str] | tuple[str, ...]) -> None:
    if asked.as_json:
        echo_json(value)
    else:
        click.echo("\n".join(lines))
