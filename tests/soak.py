"""What a pass of a resident follower costs, and whether its memory stays flat: `make soak`.

The follower is the real one, in a network namespace with a real kernel; its store answers 304.
A pass that fails ends it.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import yaml
from msgspec.structs import replace

from reyes.demo.isolation import FILES, enter, run_isolated
from reyes.net import Ports
from reyes.ruleset import Content, GroupReference, Ingress
from tests.bench.generator import (
    HOME,
    MIDDLE,
    QUIET_HOST,
    SMALL,
    Size,
    group_id,
    make_world,
    without_one_member,
)
from tests.bench.hosts import Backend, Bench, FollowerHost, backend, follower_host
from tests.soak_process import Mark

RULES, SETS = 50, 20
"""Of a typical host."""

CPU_MILLISECONDS = 15
"""What a pass with nothing new may cost."""
MEMORY_KILOBYTES = 2048
"""What the memory may grow from the first mark to the last: room between objects does, by half a
megabyte at a time, where tracemalloc finds not one object more."""


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds of a pass, kilobytes in memory at two marks."""

    own: float
    children: float
    first: Mark
    last: Mark

    @property
    def cpu(self) -> float:
        return self.own + self.children

    @property
    def growth(self) -> int:
        return self.last.memory - self.first.memory


def typical(size: Size) -> Content:
    """Return a world with a host of 50 rules and 20 sets."""
    ingress = tuple(
        Ingress(
            service=Ports(protocol="tcp", first=2000 + number, last=2000 + number),
            groups=(GroupReference(id=group_id(HOME, number % SETS)),),
        )
        for number in range(RULES)
    )
    content = make_world(size)
    home = next(region for region in content.regions if region.name == HOME)
    host = next(entry for entry in home.interfaces if entry.instance == QUIET_HOST)
    groups = tuple(
        replace(group, ingress=ingress) if group.id in host.groups else group
        for group in home.groups
    )
    regions = (region for region in content.regions if region.name != HOME)
    return replace(
        content,
        regions=tuple(
            sorted((*regions, replace(home, groups=groups)), key=lambda region: region.name)
        ),
    )


def soak(host: FollowerHost, marks: tuple[int, ...], blobs: tuple[Path, ...] = ()) -> Cost:
    """Let a follower make passes, and compare the first mark with the last."""
    numbers = ",".join(map(str, marks))
    settings = [f"{name}={value}" for name, value in host.server.environment().items()]
    command = [sys.executable, "-m", "tests.soak_process", str(host.config), numbers]
    done = host.namespace.run(["env", *settings, *command, *map(str, blobs)])
    found = [msgspec.json.decode(line, type=Mark) for line in done.stdout.splitlines()]
    if len(found) != len(marks):
        raise RuntimeError(f"the follower ended early: {done.stderr[-2000:]}")
    first, last = found[0], found[-1]
    passes = last.passes - first.passes
    return Cost(
        (last.own - first.own) / passes, (last.children - first.children) / passes, first, last
    )


def write_blobs(bench: Bench, size: Size, count: int) -> tuple[Path, ...]:
    """Sign rulesets in which a member of the first group goes and comes back, in turns."""
    content = typical(size)
    worlds = (without_one_member(content, group_id(HOME, 0), 0), content)
    blobs = []
    for number in range(count):
        path = bench.directory / f"{number}.gpg"
        path.write_bytes(bench.sign(worlds[number % 2]).blob)
        blobs.append(path)
    return tuple(blobs)


def with_metrics(host: FollowerHost) -> None:
    """Let a host write metrics, packet counters included."""
    config = yaml.safe_load(host.config.read_text())
    config["follower"]["metrics_file"] = str(host.state.with_suffix(".prom"))
    host.config.write_text(yaml.safe_dump(config))


def measure(bench: Bench, passes: int, changes: int) -> Iterator[tuple[str, Cost, bool]]:
    """Yield what is measured, what it cost, and whether the CPU time is bounded."""
    idle = (passes // 10, passes)
    for size in (SMALL, MIDDLE):
        what = f"nothing new, {size.instances:,} instances, nft"
        yield what, _idle(bench, size, "nft", idle), True
    few = (min(passes, 100), min(passes, 1000))
    yield "nothing new, legacy", _idle(bench, SMALL, "legacy", few), True
    yield "nothing new, with metrics", _idle(bench, SMALL, "nft", few, metrics=True), False
    with follower_host(bench, "changes", QUIET_HOST, bench.sign(typical(SMALL)).blob) as host:
        blobs = write_blobs(bench, SMALL, changes)
        cost = soak(host, (changes // 4, changes), blobs)
    yield "a new ruleset each time", cost, False


def _idle(
    bench: Bench, size: Size, which: Backend, marks: tuple[int, ...], *, metrics: bool = False
) -> Cost:
    name = f"{size.instances}-{which}-{metrics}"
    blob = bench.sign(typical(size)).blob
    with (
        backend(which, bench.directory),
        follower_host(bench, name, QUIET_HOST, blob) as host,
    ):
        if metrics:
            with_metrics(host)
        return soak(host, marks)


@click.command()
@click.option("--passes", type=click.IntRange(100), default=10_000, show_default=True)
@click.option("--changes", type=click.IntRange(8), default=200, show_default=True)
@click.option("--isolated", is_flag=True, hidden=True)
def main(passes: int, changes: int, isolated: bool) -> None:
    """Let a follower make passes, and see what they cost in CPU time and memory."""
    if not isolated:
        sys.exit(run_isolated([sys.executable, "-m", "tests.soak", *sys.argv[1:], "--isolated"]))
    enter("http://127.0.0.1:9")
    # A command that compiles its modules at its start would measure the compiler.
    del os.environ["PYTHONDONTWRITEBYTECODE"]
    failed = False
    click.echo("CPU ms of a pass: all = own + children; memory in MB after so many passes")
    for what, cost, bounded in measure(Bench(quick=False, directory=FILES), passes, changes):
        bad = cost.growth > MEMORY_KILOBYTES or (bounded and cost.cpu > CPU_MILLISECONDS)
        failed |= bad
        click.echo(f"{'BAD' if bad else 'ok':4}{what:42} {_figures(cost)}")
    sys.exit(failed)


def _figures(cost: Cost) -> str:
    cpu = f"{cost.cpu:6.1f} ={cost.own:6.1f} +{cost.children:6.1f}"
    first, last = (
        f"{mark.memory / 1024:6.1f} after {mark.passes:6,}" for mark in (cost.first, cost.last)
    )
    return f"{cpu}   {first} {last}"


if __name__ == "__main__":
    main()
