"""The first commit on a host: 1,000 rules that name 200 sets of 1,000 members."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from msgspec.structs import replace

from reyes.adapters.kernel import Kernel, families
from reyes.demo.namespaces import Namespace
from reyes.net import Family
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.live import nothing_live
from reyes.netfilter.plan import CommitPlan, RestoreSets, RestoreTable, plan_commit
from tests.bench import processes
from tests.bench.figures import Aim, Row, alternate
from tests.bench.generator import BUSY_HOST, DENSE, make_world
from tests.bench.hosts import (
    BACKENDS,
    Backend,
    Bench,
    backend,
    follower_host,
    policy_of,
)

RAW = "raw ipset restore and iptables-restore of the same text"

Command = tuple[tuple[str, ...], Path]


def measure(bench: Bench) -> Iterator[Row]:
    world = make_world(DENSE)
    dataplane = compile_policy(policy_of(world, BUSY_HOST))
    blob = bench.sign(world).blob
    for which in BACKENDS:
        with backend(which, bench.directory):
            yield _in_process(bench, which, dataplane)
            yield _through_command_line(bench, which, dataplane, blob)


def plan_for(dataplane: Dataplane) -> CommitPlan:
    """Plan the first commit on a host whose tables and sets are empty."""
    return plan_commit(dataplane, nothing_live(families()), "shared")


def raw_commands(plan: CommitPlan, directory: Path) -> list[Command]:
    """Return the commands that a plan comes down to, each with a file of its input."""
    commands: list[Command] = []
    for number, step in enumerate(plan.steps):
        path = directory / f"step-{number}"
        match step:
            case RestoreSets(text):
                commands.append((("ipset", "restore"), path))
            case RestoreTable(family, text):
                prefix = "iptables" if family is Family.V4 else "ip6tables"
                commands.append(((f"{prefix}-restore", "--noflush"), path))
            case _:
                continue
        path.write_text(text, encoding="ascii")
    return commands


def run_raw(namespace: Namespace, commands: list[Command]) -> float:
    """Run commands one after the other; return the seconds they took."""
    return sum(processes.run(namespace, argv, stdin=path).wall for argv, path in commands)


def _in_process(bench: Bench, which: Backend, dataplane: Dataplane) -> Row:
    commands = raw_commands(plan_for(dataplane), bench.directory)

    def execute() -> float:
        # Tables keep what they have rendered.
        fresh = replace(dataplane, tables=tuple(replace(table) for table in dataplane.tables))
        started = perf_counter()
        kernel = Kernel()
        kernel.execute(plan_commit(fresh, kernel.read(), "shared"))
        return perf_counter() - started

    ways = {
        "floor": _on_fresh_host(lambda host: run_raw(host, commands)),
        "ours": _on_fresh_host(lambda host: host.call(execute)),
    }
    found = {
        name: median(times) for name, times in alternate(ways, bench.few_rounds, warm_up=0).items()
    }
    return Row(
        measure="apply",
        what=f"first apply, 200 sets of 1,000, 1,000 rules: plan and execute, {which}",
        beside=RAW,
        unit="ms",
        floor=found["floor"] * 1000,
        ours=found["ours"] * 1000,
        aim=Aim("ratio", 1.3),
    )


def _on_fresh_host(action: Callable[[Namespace], float]) -> Callable[[], float]:
    def run() -> float:
        with Namespace() as namespace:
            return action(namespace)

    return run


def _through_command_line(bench: Bench, which: Backend, dataplane: Dataplane, blob: bytes) -> Row:
    commands = raw_commands(plan_for(dataplane), bench.directory)
    number = iter(range(sys.maxsize))

    def raw_and_bare() -> float:
        with follower_host(bench, "raw", BUSY_HOST, blob) as host:
            return host.bare_client().wall + run_raw(host.namespace, commands)

    def follow() -> float:
        name = f"first-{which}-{next(number)}"
        with follower_host(bench, name, BUSY_HOST, blob) as host:
            return host.follow().wall

    found = alternate({"floor": raw_and_bare, "ours": follow}, bench.few_rounds, warm_up=0)
    return Row(
        measure="apply",
        what=f"first apply, 200 sets of 1,000, 1,000 rules: reyes follower, {which}",
        beside=f"{RAW}, and a bare boto3 client",
        unit="ms",
        floor=median(found["floor"]) * 1000,
        ours=median(found["ours"]) * 1000,
        aim=Aim("ratio", 1.3),
    )
