"""The same question to both readings of a world, and what to show where they differ."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from unittest.mock import patch

import msgspec

from reyes.netfilter import compiler, division, port_sets, rules, tree
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.evaluate import Evaluator, Packet
from reyes.netfilter.ipset import create_text
from reyes.netfilter.iptables import render_chain
from reyes.policy import resolve
from tests.oracle import Verdict, verdict
from tests.strategies_worlds import World
from tests.worlds import verified


@dataclass(frozen=True)
class Difference:
    """A packet on which the oracle and somebody else do not agree."""

    world: World
    packet: Packet
    expected: str
    found: str

    def __str__(self) -> str:
        """Write all that it takes to look into it: the world, the packet, both, and the rules."""
        return "\n".join(
            (
                f"oracle: {self.expected}, {self.found}",
                f"packet: {self.packet}",
                f"content: {msgspec.json.encode(self.world.content).decode()}",
                f"follower: {msgspec.json.encode(self.world.config).decode()}",
                f"host: {self.world.host}, {self.world.shape}",
                *rules_text(compiled(self.world)),
            )
        )


def compiled(world: World) -> Dataplane:
    """What a follower would put in force."""
    shape = world.shape
    with (
        patch.multiple(compiler, PLAIN_RULES=shape.plain_rules),
        patch.multiple(rules, LOOKUPS=shape.lookups),
        patch.multiple(division, LEAF_WEIGHT=shape.leaf_weight),
        patch.multiple(
            tree,
            WALKED_SERVICES=shape.walked_services,
            SERVICE_ENTRIES=shape.service_entries,
        ),
        patch.multiple(
            port_sets, PORT_LOOKUPS=shape.port_lookups, PORT_MEMBERS=shape.port_members
        ),
    ):
        return compiler.compile_policy(resolve(verified(world.content), world.host))


def judged(world: World, packets: Iterable[Packet]) -> list[tuple[Packet, Verdict]]:
    """Packets with the oracle's verdicts."""
    host = world.host
    return [(packet, verdict(world.content, host, packet)) for packet in packets]


def evaluator_differences(
    world: World, expected: Iterable[tuple[Packet, Verdict]]
) -> Iterator[Difference]:
    evaluator = Evaluator(compiled(world))
    for packet, by_oracle in expected:
        decision = evaluator.walk(packet).decision
        if decision != by_oracle:
            yield Difference(world, packet, by_oracle, f"evaluator: {decision}")


def rules_text(dataplane: Dataplane) -> Iterator[str]:
    yield create_text(dataplane.sets)
    for table in dataplane.tables:
        yield f"# IPv{table.family.value}"
        for chain in table.chains:
            yield from (line for _, line in render_chain(chain, table.family))
