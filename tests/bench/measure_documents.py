"""Decoding a ruleset and compiling a host's part of it, beside a bare JSON parser."""

import gc
import json
from collections.abc import Callable, Iterator
from time import perf_counter

from reyes.netfilter.compiler import compile_policy
from reyes.ruleset import decode
from tests.bench.figures import Row, growth, medians
from tests.bench.generator import BUSY_HOST, LARGE, MIDDLE, SMALL, Size, make_world
from tests.bench.hosts import Bench, document, policy_of


def measure(bench: Bench) -> Iterator[Row]:
    sizes = (SMALL, MIDDLE) if bench.quick else (SMALL, MIDDLE, LARGE)
    found = {size: _times(size, bench.rounds) for size in sizes}
    for way, what in (
        ("decode", "decode a ruleset"),
        ("compile", "resolve and compile a host with 1,000 rules"),
    ):
        grows = growth({size.instances: times[way] for size, times in found.items()}, "instances")
        for size in sizes:
            yield Row(
                measure="documents",
                what=f"{what}, {size.instances:,} instances",
                beside="json.loads of the text",
                unit="ms",
                floor=found[size]["json"],
                ours=found[size][way],
                grows=grows if size is MIDDLE else "",
            )


def _times(size: Size, rounds: int) -> dict[str, float]:
    text = document(make_world(size))
    content = decode(text).content
    return medians(
        {
            "json": _timed(lambda: json.loads(text)),
            "decode": _timed(lambda: decode(text)),
            "compile": _timed(lambda: compile_policy(policy_of(content, BUSY_HOST))),
        },
        rounds,
    )


def _timed(action: Callable[[], object]) -> Callable[[], float]:
    """Time an action as in a process of its own: other worlds are no work for the collector."""

    def run() -> float:
        gc.collect()
        gc.freeze()
        started = perf_counter()
        result = action()
        taken = (perf_counter() - started) * 1000
        del result
        gc.unfreeze()
        return taken

    return run
