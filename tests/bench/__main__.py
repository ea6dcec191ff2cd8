"""Measure each stage of Reyes beside its floor: python -m tests.bench --help."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from reyes.demo.isolation import FILES, enter, run_isolated
from tests.bench import (
    measure_apply,
    measure_documents,
    measure_follower,
    measure_leader,
    measure_packets,
    measure_peers,
    measure_signing,
    page,
    table,
)
from tests.bench.figures import Curve, Figures, Row, to_json
from tests.bench.hosts import Bench
from tests.bench.machine import describe_machine

MEASURES: dict[str, Callable[[Bench], Iterator[Row | Curve]]] = {
    "leader": measure_leader.measure,
    "signing": measure_signing.measure,
    "documents": measure_documents.measure,
    "follower": measure_follower.measure,
    "apply": measure_apply.measure,
    "packets": measure_packets.measure,
    "peers": measure_peers.measure,
}

_DOCS = Path(__file__).parents[2] / "docs"
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


@click.command()
@click.argument("measures", nargs=-1, type=click.Choice(list(MEASURES)))
@click.option("--quick", is_flag=True, help="Fewer rounds, smaller worlds: about two minutes.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Also write a JSON file.")
@click.option(
    "--page",
    "data",
    type=click.Path(path_type=Path, exists=True),
    help="Write docs/performance.md from such a JSON file, and measure nothing.",
)
@click.option("--isolated", is_flag=True, hidden=True)
def main(
    measures: tuple[str, ...],
    quick: bool,
    output: Path | None,
    data: Path | None,
    isolated: bool,
) -> None:
    """Measure all, or the named MEASURES, and print one table."""
    if data:
        page.write(data, _DOCS)
        return
    if not isolated:
        os.environ["PATH"] = f"{os.environ['PATH']}:{_SYSTEM_PATH}"
        argv = [sys.executable, "-m", "tests.bench", *sys.argv[1:], "--isolated"]
        sys.exit(run_isolated(argv))
    enter("http://127.0.0.1:9")
    # Commands that compile their modules at each start would measure the compiler.
    del os.environ["PYTHONDONTWRITEBYTECODE"]
    figures = _measure(measures or tuple(MEASURES), Bench(quick, FILES))
    click.echo(table.plain(figures))
    if output:
        output.write_bytes(to_json(figures))


def _measure(names: tuple[str, ...], bench: Bench) -> Figures:
    machine = describe_machine()
    found: list[Row | Curve] = []
    first = time.monotonic()
    for name in names:
        started = time.monotonic()
        found += MEASURES[name](bench)
        click.echo(f"{name} took {time.monotonic() - started:.0f} s", err=True)
    return Figures(
        machine=machine,
        quick=bench.quick,
        seconds=round(time.monotonic() - first),
        rows=tuple(row for row in found if isinstance(row, Row)),
        curves=tuple(curve for curve in found if isinstance(curve, Curve)),
    )


if __name__ == "__main__":
    main()
