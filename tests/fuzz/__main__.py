"""`make fuzz SECONDS=60`: every target under libFuzzer, coverage leading the way.

    python -m tests.fuzz SECONDS           all targets, as many at once as there are processors
    python -m tests.fuzz TARGET [FILE...]  one target, with libFuzzer's own options or inputs

What was found to reach new code is kept in build/fuzz/TARGET and begins the next run. An input
that breaks a property is written to build/fuzz/TARGET-crash-... (or -oom-, -timeout-): give it to
its target as FILE to see it again.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

DIRECTORY = Path("build/fuzz")
BOUNDS = ("-timeout=20", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1")
"""Seconds and megabytes that no input may take."""

_DONE = re.compile(r"stat::number_of_executed_units: (\d+)")

Check = Callable[[bytes], object]


def load() -> dict[str, tuple[Check, Callable[[], tuple[bytes, ...]]]]:
    """Import all targets: those of bytes, and tests whose values hypothesis makes out of bytes."""
    from tests.fuzz import test_bytes, test_inventories
    from tests.fuzz.targets import TARGETS

    structured: dict[str, Any] = {
        "contents": test_bytes.test_spoilt_contents,
        "configurations": test_bytes.test_spoilt_configurations,
        "names": test_inventories.test_names_of_any_kind_reach_no_payload,
        "replies": test_inventories.test_replies_of_any_kind_are_carried_or_refused,
    }
    return {
        **{name: (target.check, target.seeds) for name, target in TARGETS.items()},
        **{name: (test.hypothesis.fuzz_one_input, tuple) for name, test in structured.items()},
    }


def fuzz_one(name: str, options: list[str]) -> None:
    """Hand this process over to libFuzzer, which ends it."""
    import atheris

    with atheris.instrument_imports(include=["reyes", "yaml"]):
        check, seeds = load()[name]

    def call(data: bytes) -> None:
        check(data)

    corpus = DIRECTORY / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    inputs = () if any(not option.startswith("-") for option in options) else (str(corpus),)
    artifacts = f"-artifact_prefix={DIRECTORY}/{name}-"
    atheris.Setup([sys.argv[0], *BOUNDS, artifacts, *options, *inputs], call)
    atheris.Fuzz()


def fuzz_all(seconds: int) -> int:
    """Fuzz each target for its share of the time; return how many properties were broken."""
    names = list(load())
    at_once = os.cpu_count() or 1
    share = max(1, seconds * at_once // len(names))
    # libFuzzer ends without cleaning up.
    with TemporaryDirectory(prefix="reyes-fuzz-") as scratch, ThreadPoolExecutor(at_once) as pool:
        broken = sum(pool.map(lambda name: _fuzz_for(name, share, scratch), names))
    click.echo(f"{broken} of {len(names)} properties broken")
    return broken


def _fuzz_for(name: str, seconds: int, scratch: str) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, f"-max_total_time={seconds}"],
        capture_output=True,
        check=False,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": scratch},
    )
    broken = done.returncode != 0
    inputs = _DONE.search(done.stderr)
    count = inputs[1] if inputs else "no"
    verdict = f"BROKEN (exit code {done.returncode})" if broken else "ok"
    click.echo(f"{name:16} {count:>9} inputs in {seconds} s  {verdict}")
    if broken:
        click.echo(done.stdout[-6000:] + done.stderr[-3000:])
    return broken


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        sys.exit(fuzz_all(int(sys.argv[1])) > 0)
    fuzz_one(sys.argv[1], sys.argv[2:])
