"""Rows for people: who reached whom, before and now, who decided, and what is right."""

from collections.abc import Sequence

import click
from msgspec import Struct

from reyes.demo.probe import Outcome
from reyes.demo.story import Probe
from reyes.net import service_text

_COLOURS = {Outcome.REACHED: "green", Outcome.NO_ANSWER: "red", Outcome.REFUSED: "yellow"}


class Row(Struct, frozen=True, kw_only=True):
    """A probe and what became of it; `before` is the outcome of the same probe earlier."""

    probe: Probe
    before: Outcome
    outcome: Outcome
    decided_by: str

    @property
    def as_expected(self) -> bool:
        """Tell whether the groups got what they say."""
        return (self.outcome is Outcome.REACHED) is (self.probe.allowed == "yes")


def show(rows: Sequence[Row], before: str) -> None:
    """Print rows under a heading; `before` names the column of the earlier outcome."""
    cells = [_cells(row) for row in rows]
    heading = ("from", "to", "service", before, "with Reyes", "groups say")
    widths = [max(len(line[i]) for line in (heading, *cells)) for i in range(len(heading))]
    margin = " " * 6
    reason = sum(widths[:3]) + 6
    click.echo(click.style(margin + _line(heading, widths), dim=True))
    click.echo(click.style(f"{margin}{'because':{reason}}rule that decided", dim=True))
    for row, line in zip(rows, cells, strict=True):
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        padded[3] = click.style(padded[3], fg=_COLOURS[row.before])
        padded[4] = click.style(padded[4], fg=_COLOURS[row.outcome])
        click.echo(f"  {mark(good=row.as_expected)}" + "  ".join(padded).rstrip())
        decided = f"{row.probe.why:{reason}}{row.decided_by}"
        click.echo(click.style(margin + decided, dim=True))


def mark(*, good: bool) -> str:
    """Return what stands before a result."""
    return "ok  " if good else click.style("BAD ", fg="red", bold=True)


def _cells(row: Row) -> tuple[str, ...]:
    probe = row.probe
    service = service_text(probe.service)
    return (
        probe.source,
        probe.destination,
        service,
        row.before.value,
        row.outcome.value,
        probe.allowed,
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
