"""What a real kernel does with real packets is what the oracle says."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.aim import Aim
from tests.kernel.judge import BACKENDS, Backend, Judge, backend, sendable
from tests.proving import judged
from tests.strategies_worlds import WORLDS, World

pytestmark = pytest.mark.kernel

PACKETS = 400


@pytest.mark.parametrize("name", BACKENDS)
def test_the_kernel_does_what_the_oracle_says(name: Backend) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(WORLDS, st.randoms(use_true_random=True))
    def agree(world: World, lot: Random) -> None:
        expected = judged(world, sendable(Aim(world, lot).packets(PACKETS)))
        seen.update(by_oracle for _, by_oracle in expected)
        difference = next(judge.differences(world, expected), None)
        assert difference is None, str(difference)

    with backend(name), Judge() as judge:
        agree()
    assert min(seen[each] for each in ("not judged", "accepted", "denied")) > 0.05 * seen.total()
