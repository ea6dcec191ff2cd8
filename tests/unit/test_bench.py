"""The bench itself: the worlds it measures in, and the page that its figures become."""

import hashlib
from functools import partial
from itertools import count as count_from
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reyes.adapters.ec2 import Ec2Reader
from reyes.config import SourceConfig
from reyes.inventory import merge, view
from reyes.ruleset import count
from tests.bench import page, table
from tests.bench.aws_server import aws_server
from tests.bench.figures import Aim, Curve, Figures, Row, alternate, from_json, to_json
from tests.bench.generator import (
    BUSY_HOST,
    DENSE,
    HOME,
    MIDDLE,
    SHARES,
    Size,
    group_id,
    make_world,
    without_one_member,
)
from tests.bench.hosts import policy_of
from tests.bench.peers import linear_rules, linear_sets, recreate_text
from tests.bench.replies import render_region
from tests.bench.shapes import SHAPES, Shape, policy_with, probes_of, rules_of

DOCS = Path(__file__).parents[2] / "docs"
TINY = Size(60, 40)
MATCHING: Any = {"matching": "name", "excluded_group_names": ()}


def digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def row(**fields: Any) -> Row:
    plain = {"measure": "m", "what": "w", "beside": "b", "unit": "ms", "floor": 2.0, "ours": 3.0}
    return Row(**{**plain, **fields})


def test_same_seed_same_world() -> None:
    make_world.cache_clear()
    first = digest(make_world(TINY))
    make_world.cache_clear()

    assert digest(make_world(TINY)) == first
    assert digest(make_world(TINY, seed=2)) != first


@pytest.mark.parametrize("size", [TINY, MIDDLE, DENSE])
def test_a_world_has_its_size_and_two_hosts_more(size: Size) -> None:
    counts = count(make_world(size), len(SHARES))

    assert (counts.instances, counts.groups) == (size.instances + 2, size.groups)


def test_the_dense_host_has_200_sets_of_1000_members() -> None:
    policy = policy_of(make_world(DENSE), BUSY_HOST)

    allows = [allow for interface in policy.interfaces for allow in interface.allows]
    peers = {allow.peer.name: allow.peer for allow in allows}

    assert len(allows) == 1000
    assert [len(peer.addresses) for peer in peers.values()] == [1000] * 200


def test_one_member_leaves_one_group() -> None:
    before = make_world(TINY)
    after = without_one_member(before, group_id(HOME, 0), 0)

    assert count(before, 6).members - count(after, 6).members == 1


def test_the_leader_reads_the_world_that_was_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(TINY)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "bench")
    with aws_server() as server:
        server.regions = {region.name: render_region(region) for region in world.regions}
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        sources = [SourceConfig(region=region) for region in SHARES]
        reader = Ec2Reader(sources, partial(view, **MATCHING), lambda *_: None)
        with reader() as views:
            assert merge(views(), **MATCHING) == world


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number", [1, 10, 1000])
def test_a_shape_has_so_many_different_rules(shape: Shape, number: int) -> None:
    rules = rules_of(shape, number)
    policy = policy_with(rules)

    assert len(set(rules)) == number
    assert len(linear_rules(policy)) == number
    assert probes_of(shape, number)


def test_peers_fill_each_set_anew() -> None:
    sets = linear_sets(policy_with(rules_of("one port", 3)))

    lines = recreate_text(sets).splitlines()

    assert [line for line in lines if line.startswith("swap")] == [
        f"swap spare {entry.name}" for entry in sets
    ]
    assert sum(line.startswith("add spare 10.10.") for line in lines) == 30


def test_ways_take_turns() -> None:
    turns = count_from(1)

    found = alternate({"a": lambda: next(turns), "b": lambda: next(turns)}, rounds=2, warm_up=1)

    assert found == {"a": [3, 5], "b": [4, 6]}


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        (None, None),
        (Aim("ratio", 1.5), True),
        (Aim("ratio", 1.4), False),
        (Aim("ours", 3), True),
        (Aim("ours", 2.9), False),
        (Aim("difference", 1), True),
        (Aim("difference", 0.9), False),
    ],
)
def test_an_aim_is_met_or_missed(aim: Aim | None, met: bool | None) -> None:
    assert row(aim=aim).is_met is met


def test_the_table_shows_figures_with_their_units() -> None:
    figures = Figures(
        machine=("a machine",),
        quick=False,
        seconds=492,
        rows=(
            row(what="first", aim=Aim("ratio", 1.3)),
            row(what="second", unit="ns", floor=1234.0, ours=617.0, grows="x 2"),
        ),
    )

    assert table.markdown(figures).splitlines()[2:] == [
        "| first | 2.00 ms | 3.00 ms | 1.50 | ratio 1.3: missed |  | b |",
        "| second | 1,234 ns | 617 ns | 0.50 |  | x 2 | b |",
    ]
    assert table.plain(figures).splitlines()[1:] == [
        "first    2.00 ms  3.00 ms   1.50  ratio 1.3: missed                b",
        "second  1,234 ns   617 ns   0.50                     x 2           b",
    ]


def test_a_page_is_written_from_the_json_of_a_whole_run_only(tmp_path: Path) -> None:
    curve = Curve(name="Reyes, nft", points=((1, 400.0), (1000, 900.0)))
    figures = Figures(
        machine=("a machine",), quick=False, seconds=492, rows=(row(),), curves=(curve,)
    )
    data = tmp_path / "figures.json"

    data.write_bytes(to_json(figures))
    page.write(data, tmp_path)

    assert from_json(data.read_bytes()) == figures
    assert table.markdown(figures) in (tmp_path / "performance.md").read_text()
    assert "8.2 minutes" in (tmp_path / "performance.md").read_text()
    assert ">Reyes, nft</text>" in (tmp_path / "performance.svg").read_text()

    data.write_bytes(to_json(msgspec.structs.replace(figures, quick=True)))
    with pytest.raises(ValueError, match="quick run"):
        page.write(data, tmp_path)


def test_the_documented_figures_are_those_of_one_run() -> None:
    figures = from_json((DOCS / "performance.json").read_bytes())

    for name, text in page.render(figures).items():
        assert (DOCS / name).read_text() == text
