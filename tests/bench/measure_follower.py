"""A follower's pass: with nothing to do, with a new ruleset, with one member changed in it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count

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
_MEMBER_AIM = Aim("difference", 100)
_ASKED_FOR, _ASKED_FOR_BY_NOBODY = 7, 220
"""Numbers of groups of the home region: the busy host's rules name the first 200."""

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
        yield from _one_member(bench, host, dense)
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
        changed = _publications(bench, host, world, 4, ("changed",))["changed"]
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


def _one_member(bench: Bench, host: FollowerHost, world: Content) -> Iterator[Row]:
    """Measure what a new ruleset adds to a pass, and what one changed member in it does."""
    ways = ("again", "elsewhere", "changed", "idle")
    found = _publications(bench, host, world, 2 * bench.rounds, ways)
    nothing, other = "a pass with nothing to do", "a new ruleset that changes nothing here"
    for what, beside, floor, ours, aim in (
        ("the same content published again", nothing, "idle", "again", None),
        ("a group changed that nobody here asks for", nothing, "idle", "elsewhere", None),
        ("one member of one group changed", other, "elsewhere", "changed", _MEMBER_AIM),
        ("one member of one group changed", nothing, "idle", "changed", _MEMBER_AIM),
    ):
        yield Row(
            measure="follower",
            what=f"follower, {what}, 200 sets of 1,000: wall time",
            beside=beside,
            unit="ms",
            floor=found[floor].wall * 1000,
            ours=found[ours].wall * 1000,
            aim=aim,
        )


def _publications(
    bench: Bench, host: FollowerHost, world: Content, rounds: int, ways: Sequence[str]
) -> dict[str, Cost]:
    """Run passes in turn: with nothing to do (`idle`), and with kinds of new rulesets.

    Each change is another one, so that no set is there already.
    """
    gone = {_ASKED_FOR: count(1), _ASKED_FOR_BY_NOBODY: count(1)}
    places = dict.fromkeys(gone, 0)

    def publish(changed: int | None, outcome: str) -> Cost:
        if changed is not None:
            places[changed] = next(gone[changed])
        content = world
        for group, place in places.items():
            content = without_one_member(content, group_id(HOME, group), place)
        host.server.blob = bench.sign(content).blob
        cost = host.follow()
        if host.outcome() != outcome:
            raise RuntimeError(f"a pass ended as {host.outcome()}, not as {outcome}")
        return cost

    passes: dict[str, Callable[[], Cost]] = {
        "again": partial(publish, None, "unchanged"),
        "elsewhere": partial(publish, _ASKED_FOR_BY_NOBODY, "unchanged"),
        "changed": partial(publish, _ASKED_FOR, "applied"),
        "idle": host.follow,
    }
    publish(_ASKED_FOR, "applied")
    return median_costs({way: passes[way] for way in ways}, rounds, warm_up=0)
