"""The leader: what it takes beyond botocore's reading and parsing of the same replies."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reyes.demo.namespaces import Namespace
from tests.bench import processes
from tests.bench.aws_server import AwsServer, aws_server
from tests.bench.figures import Aim, Row, growth
from tests.bench.generator import LARGE, LARGEST, MIDDLE, SHARES, SMALL, Size, make_world
from tests.bench.hosts import Bench, fresh_namespace
from tests.bench.processes import Cost, median_costs
from tests.bench.replies import render_region

PAGE_DELAY = 0.5
"""Seconds that the server waits: EC2 takes one or two for a thousand entries."""

_READER = Path(__file__).with_name("read_ec2.py")

Pairs = dict[Size, tuple[Cost, Cost]]
"""What a bare reading and the leader cost, for each size of the world."""


def measure(bench: Bench) -> Iterator[Row]:
    sources = {"sources": [{"region": region} for region in SHARES]}
    config = bench.configure("leader", "leader", sources)
    with fresh_namespace() as namespace, aws_server(namespace) as server:
        leader = _Leader(namespace, server, config)
        pairs = {SMALL: leader.compare(SMALL, 1 if bench.quick else 3, warm_up=1)}
        if not bench.quick:
            pairs[MIDDLE] = leader.compare(MIDDLE, 3)
        yield leader.waiting(SMALL if bench.quick else MIDDLE, 1 if bench.quick else 2)
        largest = MIDDLE if bench.quick else LARGE
        pairs[largest] = leader.compare(largest, 1)
    yield from _rows(pairs)


@dataclass(frozen=True)
class _Leader:
    """The leader of six regions, and a program that only reads them."""

    namespace: Namespace
    server: AwsServer
    config: Path

    def compare(self, size: Size, rounds: int, warm_up: int = 0) -> tuple[Cost, Cost]:
        """Measure the reading of all regions, and the leader."""
        self._serve(size)
        found = median_costs(
            {"floor": lambda: self._read(*SHARES), "ours": self._lead}, rounds, warm_up
        )
        return found["floor"], found["ours"]

    def waiting(self, size: Size, rounds: int) -> Row:
        """Let the server take its time: nobody can be faster than a reading of one region."""
        self._serve(size)
        self.server.delay = PAGE_DELAY
        found = median_costs(
            {"floor": lambda: self._read(LARGEST), "ours": self._lead}, rounds, warm_up=0
        )
        self.server.delay = 0
        return Row(
            measure="leader",
            what=f"leader, {size.instances:,} instances, {PAGE_DELAY} s before each page: wall",
            beside="bare reading of the largest region's pages",
            unit="s",
            floor=found["floor"].wall,
            ours=found["ours"].wall,
            aim=Aim("ratio", 1.15),
        )

    def _serve(self, size: Size) -> None:
        world = make_world(size)
        self.server.regions = {region.name: render_region(region) for region in world.regions}

    def _lead(self) -> Cost:
        before = self.server.puts
        argv = (sys.executable, "-m", "reyes", "leader", "--config", str(self.config))
        cost = processes.run(self.namespace, argv, self.server.environment())
        if self.server.puts == before:
            raise RuntimeError("the leader published nothing")
        return cost

    def _read(self, *regions: str) -> Cost:
        argv = (sys.executable, str(_READER), *regions)
        return processes.run(self.namespace, argv, self.server.environment())


def _rows(pairs: Pairs) -> Iterator[Row]:
    own = {size.instances: ours.cpu - floor.cpu for size, (floor, ours) in pairs.items()}
    memory = {size.instances: ours.memory for size, (_, ours) in pairs.items()}
    for size, (floor, ours) in pairs.items():
        is_main = size is MIDDLE
        for figure, unit, before, after, aim, grown in (
            ("CPU", "s", floor.cpu, ours.cpu, Aim("difference", 0.5), own),
            ("peak memory", "MB", floor.memory, ours.memory, Aim("ours", 250), memory),
        ):
            yield Row(
                measure="leader",
                what=f"leader, {size.instances:,} instances, {size.groups:,} groups: {figure}",
                beside="bare reading of the same pages by botocore",
                unit=unit,
                floor=before,
                ours=after,
                aim=aim if is_main else None,
                grows=growth(grown, "instances") if is_main else "",
            )
