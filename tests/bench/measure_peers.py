"""Changing the rules in force, beside the ways that peers take."""

from collections.abc import Iterator
from statistics import median
from time import perf_counter

from reyes.adapters import commands
from reyes.adapters.kernel import Kernel
from reyes.demo.namespaces import Namespace
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.ipset import create_text
from reyes.netfilter.plan import plan_commit
from reyes.policy import HostPolicy
from tests.bench import peers, processes
from tests.bench.figures import Row
from tests.bench.generator import (
    BUSY_HOST,
    DENSE,
    HOME,
    group_id,
    make_world,
    without_one_member,
)
from tests.bench.hosts import BACKENDS, Backend, Bench, backend, policy_of


def measure(bench: Bench) -> Iterator[Row]:
    policy = policy_of(make_world(DENSE), BUSY_HOST)
    for which in BACKENDS:
        with backend(which, bench.directory), Namespace() as namespace:
            yield _one_member(bench, namespace, which, policy)
            yield _one_process_each(bench, which, policy)


def _one_member(bench: Bench, namespace: Namespace, which: Backend, policy: HostPolicy) -> Row:
    dataplane = compile_policy(policy)
    namespace.call(_commit, dataplane)
    recreated = bench.directory / "recreate"
    ours, theirs = [], []
    for number in range(bench.rounds):
        recreated.write_text(peers.recreate_text(dataplane.sets), encoding="ascii")
        cost = processes.run(namespace, ("ipset", "restore"), stdin=recreated)
        theirs.append(cost.wall * 1000)
        # Each time another one, so that no set is there already.
        world = without_one_member(make_world(DENSE), group_id(HOME, 7), number)
        dataplane = compile_policy(policy_of(world, BUSY_HOST))
        ours.append(namespace.call(_commit, dataplane) * 1000)
    return Row(
        measure="peers",
        what=f"one member changed, 200 sets of 1,000, 1,000 rules: kernel work, {which}",
        beside="peers' way: fill all sets anew and swap",
        unit="ms",
        floor=median(theirs),
        ours=median(ours),
    )


def _one_process_each(bench: Bench, which: Backend, policy: HostPolicy) -> Row:
    lines = peers.linear_rules(policy)[: 100 if bench.quick else 1000]
    script = bench.directory / "one-by-one"
    script.write_text("".join(f"iptables -w {line}\n" for line in lines), encoding="ascii")
    dataplane = compile_policy(policy)
    with Namespace() as namespace:
        namespace.call(commands.run, ("ipset", "restore"), create_text(dataplane.sets))
        committed = namespace.call(_commit, dataplane)
    with Namespace() as namespace:
        namespace.call(commands.run, ("ipset", "restore"), create_text(peers.linear_sets(policy)))
        namespace.run(["iptables", "-N", "judge"])
        cost = processes.run(namespace, ("sh", "-e", str(script)))
    return Row(
        measure="peers",
        what=f"first apply of 1,000 rules, their sets are there: kernel work, {which}",
        beside=f"peers' way: an iptables process for each of {len(lines):,} rules",
        unit="ms",
        floor=cost.wall * 1000,
        ours=committed * 1000,
    )


def _commit(dataplane: Dataplane) -> float:
    """Bring the kernel to a dataplane; return the seconds that it took, reading included."""
    started = perf_counter()
    kernel = Kernel()
    kernel.execute(plan_commit(dataplane, kernel.read(), "shared"))
    return perf_counter() - started
