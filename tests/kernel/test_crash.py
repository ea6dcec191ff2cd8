"""Followers that are killed in the middle of a commit, hundreds of times.

Whatever the moment: each family shows the old policy or the new one, whole; once the dead man's
switch is done both show the same; the next run puts the new one in force and leaves no set behind
but those of the way back. `make crash ROUNDS=1000` kills more of them.
"""

import os
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kernel.followers import FollowerHost, Keys
from tests.kernel.judge import BACKENDS, Backend
from tests.kernel.killing import (
    Death,
    When,
    begin,
    honest_run,
    make_killers,
    random_death,
    survive,
)

pytestmark = pytest.mark.kernel

ROUNDS = int(os.environ.get("REYES_CRASH_ROUNDS", "100"))
HOSTS = 4
"""So many at once: each spends half its time waiting."""

MOMENTS: dict[Backend, tuple[When, ...]] = {
    "nft": ("instead", "before", "after"),
    "legacy": ("after",),
}


def share(keys: Keys, backend: Backend, deaths: Iterable[Death]) -> None:
    """Share deaths among some hosts, and let each survive its share."""
    everyone = list(deaths)

    def live(number: int) -> None:
        with FollowerHost(keys, backend) as host:
            make_killers(host)
            begin(host)
            for death in everyone[number::HOSTS]:
                survive(host, death)

    with ThreadPoolExecutor(HOSTS) as pool:
        list(pool.map(live, range(HOSTS)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_follower_that_dies_at_any_step_leaves_the_old_policy_or_the_new(
    keys: Keys, backend: Backend
) -> None:
    with FollowerHost(keys, backend) as host:
        make_killers(host)
        begin(host)
        steps, _ = honest_run(host)
    deaths = [Death(at, when) for at in range(1, steps + 1) for when in MOMENTS[backend]]
    deaths += [Death(at, "late") for at in range(steps // 2, steps + 1)]
    share(keys, backend, deaths)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_follower_that_dies_at_any_moment_leaves_the_old_policy_or_the_new(
    keys: Keys, backend: Backend
) -> None:
    with FollowerHost(keys, backend) as host:
        begin(host)
        _, seconds = honest_run(host)
    chance = random.Random(f"{backend} {ROUNDS}")
    share(keys, backend, (random_death(chance, seconds) for _ in range(ROUNDS // 2)))


def test_the_first_commit_of_a_host_can_die_as_well(keys: Keys) -> None:
    for at in (9, 10, 11, 12, 13, 14):
        with FollowerHost(keys) as host:
            make_killers(host)
            survive(host, Death(at))
