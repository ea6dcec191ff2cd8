"""The leader: what it takes beyond botocore's reading and parsing of the same replies."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reyes.demo.namespaces import Namespace
from tests.bench import processes
from tests.bench.aws_server import AwsServer, aws_server
from tests.bench.figures import Aim, Row, growth
from tests.bench.generator import LARGE, LARGEST, MIDDLE, SHARES, SMALL, Size, make_world
from tests.bench.hosts import Bench
from tests.bench.processes import Cost, median_costs
from tests.bench.replies import render_region

PAGE_DELAY = 0.5
"""Seconds that the server waits: EC2 takes one or two for a thousand entries."""

_WHOLE = "bare reading of the same pages by botocore"
_CUT = "bare reading by botocore, its model cut as the leader cuts it"

Found = dict[Size, dict[str, Cost]]
"""What a bare reading, one that is cut and the leader cost, for each size of the world."""


def measure(bench: Bench) -> Iterator[Row]:
    sources = {"sources": [{"region": region} for region in SHARES]}
    config = bench.configure("leader", "leader", sources)
    with Namespace() as namespace, aws_server(namespace) as server:
        leader = _Leader(namespace, server, config)
        found = {SMALL: leader.compare(SMALL, bench.few_rounds, warm_up=1)}
        if not bench.quick:
            found[MIDDLE] = leader.compare(MIDDLE, bench.few_rounds)
        yield leader.waiting(SMALL if bench.quick else MIDDLE, bench.few_rounds)
        largest = MIDDLE if bench.quick else LARGE  # the whole model takes most of a minute
        found[largest] = leader.compare(largest, 1, whole=False)
    yield from _rows(found)


@dataclass(frozen=True)
class _Leader:
    """The leader of six regions, and a program that only reads them."""

    namespace: Namespace
    server: AwsServer
    config: Path

    def compare(
        self, size: Size, rounds: int, *, warm_up: int = 0, whole: bool = True
    ) -> dict[str, Cost]:
        """Measure the reading of all regions, with the `whole` model or cut, and the leader."""
        self._serve(size)
        ways: dict[str, Callable[[], Cost]] = {
            "cut": lambda: self._read("--cut", *SHARES),
            "ours": self._lead,
        }
        if whole:
            ways["whole"] = lambda: self._read(*SHARES)
        return median_costs(ways, rounds, warm_up)

    def waiting(self, size: Size, rounds: int) -> Row:
        """Let the server take its time; the bare reading makes one call after the other."""
        self._serve(size)
        self.server.delay = PAGE_DELAY
        found = median_costs(
            {"floor": lambda: self._read(LARGEST), "ours": self._lead}, rounds, warm_up=0
        )
        self.server.delay = 0
        return Row(
            measure="leader",
            what=f"leader, {size.instances:,} instances, {PAGE_DELAY} s before each page: wall",
            beside="bare reading of the largest region's pages by botocore, call after call",
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

    def _read(self, *arguments: str) -> Cost:
        argv = (sys.executable, "-m", "tests.bench.read_ec2", *arguments)
        return processes.run(self.namespace, argv, self.server.environment())


def _rows(found: Found) -> Iterator[Row]:
    cpu = {size.instances: costs["ours"].cpu for size, costs in found.items()}
    memory = {size.instances: costs["ours"].memory for size, costs in found.items()}
    for size, costs in found.items():
        name = f"leader, {size.instances:,} instances, {size.groups:,} groups"
        is_main = size is MIDDLE
        cut, ours = costs["cut"], costs["ours"]
        if whole := costs.get("whole"):
            yield Row(
                measure="leader",
                what=f"{name}: CPU",
                beside=_WHOLE,
                unit="s",
                floor=whole.cpu,
                ours=ours.cpu,
            )
        for figure, unit, before, after, aim, grown in (
            ("CPU", "s", cut.cpu, ours.cpu, Aim("difference", 0.5), cpu),
            ("peak memory", "MB", cut.memory, ours.memory, Aim("ours", 250), memory),
        ):
            yield Row(
                measure="leader",
                what=f"{name}: {figure}",
                beside=_CUT,
                unit=unit,
                floor=before,
                ours=after,
                aim=aim if is_main else None,
                grows=growth(grown, "instances") if is_main else "",
            )
