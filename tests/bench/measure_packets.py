"""What a denied packet costs, by number and shape of rules, beside the linear form of all peers.

Net figures are without what the same packet costs a host whose one rule drops all: its way
over the wire.
"""

import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from reyes.adapters.kernel import Kernel
from reyes.net import Family
from reyes.netfilter.compiler import Dataplane, compile_policy
from reyes.netfilter.ipset import create_text
from reyes.netfilter.plan import RestoreTable, plan_commit
from reyes.policy import HostPolicy
from tests.bench import peers, processes
from tests.bench.figures import Aim, Curve, Row, growth
from tests.bench.hosts import BACKENDS, Backend, Bench, backend
from tests.bench.measure_apply import plan_for
from tests.bench.shapes import (
    ADDRESSES,
    SHAPES,
    Probe,
    Shape,
    family_of,
    policy_with,
    probes_of,
    rules_of,
)
from tests.kernel.packets import Wire

COUNTS = (1, 10, 100, 300, 1000)
QUICK_COUNTS = (1, 10, 1000)


@dataclass(frozen=True, slots=True)
class PacketCost:
    """Nanoseconds of one packet: all of it, and without what it costs where one rule drops all."""

    whole: float
    net: float


Curves = dict[tuple[str, Shape], dict[int, PacketCost]]
"""By number of rules, for each form (`Reyes`, `linear`) and shape."""

_EMPTY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{}COMMIT\n"
_DENIED = re.compile(r"^\[(\d+):\d+\] .* -j DROP$", re.MULTILINE)
_DROP_ALL = _EMPTY.format("-A INPUT -i eth0 -j DROP\n")
_COMMANDS = {Family.V4: "iptables", Family.V6: "ip6tables"}


def measure(bench: Bench) -> Iterator[Row | Curve]:
    flood = _build_flood(bench.directory)
    counts = QUICK_COUNTS if bench.quick else COUNTS
    worlds = {(shape, count): _World(shape, count) for shape, count in product(SHAPES, counts)}
    for which in BACKENDS:
        with backend(which, bench.directory), Wire([*ADDRESSES.values()]) as wire:
            targets = {family: _Target(wire, flood, family) for family in Family}
            curves = _curves(targets, worlds, rounds=1 if bench.quick else bench.rounds)
            yield from _packet_rows(which, curves)
            yield from _plot_curves(which, curves)
            for shape in SHAPES:
                target, world = targets[family_of(shape)], worlds[shape, max(counts)]
                yield from _payload_rows(bench, target, which, shape, world)


class _World:
    """What a host with so many rules of a shape lets in, and what it denies."""

    def __init__(self, shape: Shape, count: int) -> None:
        self.probes = probes_of(shape, count)
        self.policy = policy_with(rules_of(shape, count), family_of(shape))
        self.dataplane = compile_policy(self.policy)


class _Target:
    """A host that is flooded by packets of one family, with whatever rules it is given."""

    def __init__(self, wire: Wire, flood: Path, family: Family) -> None:
        self.wire = wire
        self.family = family
        self.restore = f"{_COMMANDS[family]}-restore"
        self._flood = flood

    def clear(self) -> None:
        """Take all rules and sets of both families away."""
        for command in _COMMANDS.values():
            self.wire.run([f"{command}-restore"], _EMPTY.format(""))
        self.wire.run(["ipset", "destroy"])

    def apply_compiled(self, dataplane: Dataplane) -> None:
        """Put what Reyes makes of a policy in force."""
        self.clear()
        self.wire.host.call(self._commit, dataplane)

    def apply_linear(self, policy: HostPolicy) -> None:
        """Put the linear form of a policy in force."""
        self.clear()
        sets = create_text(peers.linear_sets(policy, self.family))
        self.wire.run(["ipset", "restore"], sets)
        self.wire.run([self.restore], peers.linear_text(policy, self.family))

    def drop_all(self) -> None:
        """Let one rule drop all: what a packet costs then is its way over the wire."""
        self.clear()
        self.wire.run([self.restore], _DROP_ALL)

    def _commit(self, dataplane: Dataplane) -> None:
        kernel = Kernel()
        kernel.execute(plan_commit(dataplane, kernel.read(), "shared"))

    def cost(self, probe: Probe) -> float:
        """Return the nanoseconds of one packet; RuntimeError unless every one was denied."""
        before = self._denied()
        words = [str(word) for word in (probe.protocol, probe.first, probe.last)]
        words += [probe.source] if probe.source else []
        done = self.wire.neighbour.run([str(self._flood), "eth0", ADDRESSES[self.family], *words])
        if done.returncode != 0:
            raise RuntimeError(f"flood: {done.stderr}")
        sent, cost = done.stdout.split()
        until = time.monotonic() + 5
        while (denied := self._denied() - before) < int(sent) and time.monotonic() < until:
            time.sleep(0.01)
        if denied != int(sent):
            raise RuntimeError(f"{sent} packets of {probe} were sent, and {denied} denied")
        return float(cost)

    def _denied(self) -> int:
        save = f"{_COMMANDS[self.family]}-save"
        text = self.wire.run([save, "-c", "-t", "filter"]).stdout
        return sum(map(int, _DENIED.findall(text)))


def _curves(
    targets: Mapping[Family, _Target], worlds: Mapping[tuple[Shape, int], _World], rounds: int
) -> Curves:
    """Measure in turn, and in one round what needs no more.

    That is the linear form, and the numbers of rules between the least and the most.
    """
    found: defaultdict[tuple[str, Shape, int], list[dict[Probe, PacketCost]]] = defaultdict(list)
    counts = {count for _, count in worlds}
    for number, ((shape, count), world) in product(range(rounds), worlds.items()):
        if number > 0 and min(counts) < count < max(counts):
            continue
        target = targets[family_of(shape)]
        target.drop_all()
        base = {probe: target.cost(probe) for probe in world.probes}
        target.apply_compiled(world.dataplane)
        found["Reyes", shape, count].append(_measure(target, base))
        if number == 0:
            target.apply_linear(world.policy)
            found["linear", shape, count].append(_measure(target, base))
    curves: Curves = {}
    for (form, shape, count), costs in found.items():
        curves.setdefault((form, shape), {})[count] = _worst(costs)
    return curves


def _measure(target: _Target, base: Mapping[Probe, float]) -> dict[Probe, PacketCost]:
    costs = {probe: target.cost(probe) for probe in base}
    return {probe: PacketCost(cost, cost - base[probe]) for probe, cost in costs.items()}


def _worst(rounds: Sequence[Mapping[Probe, PacketCost]]) -> PacketCost:
    """Return what the packet costs that costs most, whole and net: these may be two."""
    wholes = [median(costs[probe].whole for costs in rounds) for probe in rounds[0]]
    nets = [median(costs[probe].net for costs in rounds) for probe in rounds[0]]
    return PacketCost(max(wholes), max(nets))


def _packet_rows(which: Backend, curves: Curves) -> Iterator[Row]:
    for shape in SHAPES:
        ours, linear = curves["Reyes", shape], curves["linear", shape]
        grown = {count: cost.net for count, cost in ours.items() if count >= 10}
        most = max(ours)
        yield Row(
            measure="packets",
            what=f"worst denied packet, {most:,} rules, {shape}, {which}",
            beside="the same with one rule, net",
            unit="ns",
            floor=ours[1].net,
            ours=ours[most].net,
            aim=Aim("ratio", 1.3),
            grows=growth(grown, "rules"),
        )
        yield Row(
            measure="packets",
            what=f"worst denied packet, {most:,} rules, {shape}, {which}",
            beside="the same with one rule, whole way over the wire",
            unit="ns",
            floor=ours[1].whole,
            ours=ours[most].whole,
            aim=Aim("ratio", 1.3),
        )
        yield Row(
            measure="packets",
            what=f"worst denied packet, {most:,} rules, {shape}, {which}",
            beside="peers' way: the linear form, net",
            unit="ns",
            floor=linear[most].net,
            ours=ours[most].net,
        )


def _plot_curves(which: Backend, curves: Curves) -> Iterator[Curve]:
    """Draw the worst shape of each form, and the shape that the linear form bears best."""
    for form in ("Reyes", "linear"):
        shapes = [points for (name, _), points in curves.items() if name == form]
        worst = {count: max(points[count].net for points in shapes) for count in shapes[0]}
        yield Curve(name=f"{form}, {which}", points=tuple(worst.items()))
    mild = {count: cost.net for count, cost in curves["linear", "single ports"].items()}
    yield Curve(name=f"linear, single ports, {which}", points=tuple(mild.items()))


def _payload_rows(
    bench: Bench, target: _Target, which: Backend, shape: Shape, world: _World
) -> Iterator[Row]:
    """Compare size and load time of a table with those of the linear form."""
    family, policy, dataplane = target.family, world.policy, world.dataplane
    texts = {
        "linear": peers.linear_text(policy, family),
        "compiled": "".join(
            step.text
            for step in plan_for(dataplane).steps
            if isinstance(step, RestoreTable) and step.family is family
        ),
    }
    sets = {
        "linear": create_text(peers.linear_sets(policy, family)),
        "compiled": create_text(dataplane.sets),
    }
    taken: dict[str, list[float]] = {"linear": [], "compiled": []}
    for _ in range(bench.few_rounds):
        for form, text in texts.items():
            path = bench.directory / f"{form}.rules"
            path.write_text(text, encoding="ascii")
            target.clear()
            target.wire.run(["ipset", "restore"], sets[form])
            cost = processes.run(target.wire.host, (target.restore, "--noflush"), stdin=path)
            taken[form].append(cost.wall * 1000)
    what = f"IPv{family.value} table of 1,000 rules, {shape}"
    if which == "nft":
        yield Row(
            measure="packets",
            what=f"{what}: restore text",
            beside="peers' way: the linear form",
            unit="kB",
            floor=len(texts["linear"]) / 1000,
            ours=len(texts["compiled"]) / 1000,
        )
    yield Row(
        measure="packets",
        what=f"{what}: restore, {which}",
        beside="peers' way: the linear form",
        unit="ms",
        floor=median(taken["linear"]),
        ours=median(taken["compiled"]),
        aim=Aim("ours", 150) if which == "nft" else None,
    )


def _build_flood(directory: Path) -> Path:
    program = directory / "flood"
    source = Path(__file__).with_name("flood.c")
    argv = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)]
    subprocess.run(argv, check=True)
    return program
