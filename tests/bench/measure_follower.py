"""A follower's pass: with nothing to do, with one member changed, with a world of 50,000."""

from collections.abc import Iterator
from itertools import cycle

from reyes.ruleset import Content
from tests.bench.figures import Aim, Row, growth
from tests.bench.generator import (
    BUSY_HOST,
    DENSE,
    HOME,
    LARGE,
    MIDDLE,
    QUIET_HOST,
    SMALL,
    group_id,
    make_world,
    without_one_member,
)
from tests.bench.hosts import Bench, FollowerHost, follower_host
from tests.bench.processes import Cost, median_costs

_IDLE_AIM = Aim("ratio", 1.3)
_BARE = "python -c \"import boto3; boto3.client('s3')\""


def measure(bench: Bench) -> Iterator[Row]:
    idle = {
        "small": _idle(bench, "quiet", QUIET_HOST, make_world(SMALL)),
        "middle": _idle(bench, "middle", BUSY_HOST, make_world(MIDDLE)),
    }
    rows = (("small", "1,000 instances, 3 rules"), ("middle", "10,000 instances, 1,000 rules"))
    for name, what in rows:
        yield from _idle_rows(what, *idle[name], wall=_IDLE_AIM, memory=Aim("ours", 120))
    dense = make_world(DENSE)
    with follower_host(bench, "dense", BUSY_HOST, bench.sign(dense).blob) as host:
        host.follow()
        yield from _idle_rows(
            "10,000 instances, 1,000 rules, 200 sets of 1,000",
            *_compare(bench, host),
            wall=_IDLE_AIM,
            memory=Aim("ours", 120),
        )
        yield _one_member(bench, host, dense)
    if not bench.quick:
        yield from _large(bench, small=idle["small"][1])


def _idle(bench: Bench, name: str, instance: str, content: Content) -> tuple[Cost, Cost]:
    with follower_host(bench, name, instance, bench.sign(content).blob) as host:
        host.follow()
        return _compare(bench, host)


def _compare(bench: Bench, host: FollowerHost) -> tuple[Cost, Cost]:
    """Return what a bare client and a pass with nothing to do cost, in turn."""
    found = median_costs({"floor": host.bare_client, "ours": host.follow}, bench.rounds)
    return found["floor"], found["ours"]


def _idle_rows(what: str, floor: Cost, ours: Cost, *, wall: Aim, memory: Aim) -> Iterator[Row]:
    for figure, unit, before, after, aim in (
        ("wall time", "ms", floor.wall * 1000, ours.wall * 1000, wall),
        ("CPU", "ms", floor.cpu * 1000, ours.cpu * 1000, None),
        ("peak memory", "MB", floor.memory, ours.memory, memory),
    ):
        yield Row(
            measure="follower",
            what=f"follower with nothing to do, {what}: {figure}",
            beside=_BARE,
            unit=unit,
            floor=before,
            ours=after,
            aim=aim,
        )


def _large(bench: Bench, small: Cost) -> Iterator[Row]:
    """Measure passes in the largest world: with nothing to do, and with a new ruleset."""
    world = make_world(LARGE)
    with follower_host(bench, "large", BUSY_HOST, bench.sign(world).blob) as host:
        host.follow()
        bare, idle = _compare(bench, host)
        changed, _ = _changes(bench, host, world, rounds=4)
    what = "50,000 instances, 1,000 rules"
    for figure, unit, before, after, first in (
        ("CPU", "ms", bare.cpu * 1000, idle.cpu * 1000, small.cpu * 1000),
        ("peak memory", "MB", bare.memory, idle.memory, small.memory),
    ):
        yield Row(
            measure="follower",
            what=f"follower with nothing to do, {what}: {figure}",
            beside=_BARE,
            unit=unit,
            floor=before,
            ours=after,
            grows=growth({1_000: first, 50_000: after}, "instances"),
        )
    for figure, unit, before, after, aim in (
        ("CPU", "ms", bare.cpu * 1000, changed.cpu * 1000, Aim("ours", 1500)),
        ("peak memory", "MB", bare.memory, changed.memory, Aim("ours", 200)),
    ):
        yield Row(
            measure="follower",
            what=f"follower, a new ruleset, {what}: {figure}",
            beside=_BARE,
            unit=unit,
            floor=before,
            ours=after,
            aim=aim,
        )


def _one_member(bench: Bench, host: FollowerHost, before: Content) -> Row:
    changed, idle = _changes(bench, host, before, rounds=2 * bench.rounds)
    return Row(
        measure="follower",
        what="follower, one member of one group changed, 200 sets of 1,000: wall time",
        beside="the same with nothing to do",
        unit="ms",
        floor=idle.wall * 1000,
        ours=changed.wall * 1000,
        aim=Aim("difference", 100),
    )


def _changes(bench: Bench, host: FollowerHost, before: Content, rounds: int) -> tuple[Cost, Cost]:
    """Let one member of one group go and come back, with passes that find nothing in between."""
    worlds = cycle((without_one_member(before, group_id(HOME, 7)), before))

    def change() -> Cost:
        host.server.blob = bench.sign(next(worlds)).blob
        return host.follow()

    found = median_costs({"changed": change, "idle": host.follow}, rounds, warm_up=0)
    return found["changed"], found["idle"]
