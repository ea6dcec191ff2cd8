"""Two readings of the same rules, which share no code, agree on every packet."""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.aim import Aim
from tests.proving import evaluator_differences, judged
from tests.strategies_worlds import WORLDS, World

PACKETS = 150


def test_the_compiled_chains_say_what_the_oracle_says() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(WORLDS, st.randoms(use_true_random=True))
    def agree(world: World, lot: Random) -> None:
        expected = judged(world, Aim(world, lot).packets(PACKETS))
        seen.update(by_oracle for _, by_oracle in expected)
        difference = next(evaluator_differences(world, expected), None)
        assert difference is None, str(difference)

    agree()
    assert min(seen[each] for each in ("not judged", "accepted", "denied")) > 0.05 * seen.total()
