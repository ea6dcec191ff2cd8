"""Compare oracle, evaluator and kernel on random worlds for as long as asked: `make proof`."""

import argparse
import secrets
import sys
import time
from collections import Counter
from random import Random

import click
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from tests.aim import Aim
from tests.kernel.judge import BACKENDS, Backend, Judge, backend, sendable
from tests.proving import Difference, evaluator_differences, judged
from tests.strategies_worlds import WORLDS, World

WORLDS_IN_A_ROUND = 40
PACKETS = 300


class DifferenceError(Exception):
    """Two readings do not agree; raised so that Hypothesis looks for a smaller world."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    arguments = parser.parse_args()
    click.echo(f"seed {arguments.seed}")
    counted: Counter[str] = Counter()
    end = time.monotonic() + arguments.seconds
    number = 0
    try:
        while time.monotonic() < end:
            prove(arguments.seed + number, BACKENDS[number % len(BACKENDS)], counted)
            number += 1
            print_counts(counted, 0)
    except DifferenceError as difference:
        print_counts(counted, 1)
        click.echo(difference)
        return 1
    return 0


def prove(number: int, name: Backend, counted: Counter[str]) -> None:
    """Compare some worlds that follow from a seed, with one backend."""

    @seed(number)
    @settings(
        max_examples=WORLDS_IN_A_ROUND,
        phases=[Phase.generate, Phase.shrink],
        database=None,
        deadline=None,
        print_blob=False,
    )
    @given(WORLDS, st.randoms(use_true_random=True))
    def agree(world: World, lot: Random) -> None:
        packets = list(Aim(world, lot).packets(PACKETS))
        everything = judged(world, packets)
        in_clear = judged(world, sendable(packets))
        counted.update(by_oracle for _, by_oracle in in_clear)
        counted.update({"worlds": 1, "evaluator": len(everything), name: len(in_clear)})
        refuse(next(evaluator_differences(world, everything), None))
        refuse(next(judge.differences(world, in_clear), None))

    with backend(name), Judge() as judge:
        agree()


def refuse(difference: Difference | None) -> None:
    if difference:
        raise DifferenceError(str(difference))


def print_counts(counted: Counter[str], differences: int) -> None:
    packets = ", ".join(f"{counted[where]:,} by {where}" for where in ("evaluator", *BACKENDS))
    verdicts = ", ".join(f"{counted[v]:,} {v}" for v in ("not judged", "accepted", "denied"))
    click.echo(
        f"{counted['worlds']:,} worlds; packets: {packets} (in the kernel {verdicts});"
        f" differences: {differences}"
    )


if __name__ == "__main__":
    sys.exit(main())
