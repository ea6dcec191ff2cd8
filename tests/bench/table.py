"""The one table, as plain text and as Markdown."""

from collections.abc import Sequence

from tests.bench.figures import Figures, Row

HEADINGS = ("what", "floor", "ours", "ratio", "aim", "how it grows", "the floor is")
_NUMBERS = (1, 2, 3)


def plain(figures: Figures) -> str:
    """Write the table for a terminal."""
    lines = _cells(figures.rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(figures: Figures) -> str:
    """Write the table for a document."""
    head, *lines = _cells(figures.rows)
    ruler = ["---:" if column in _NUMBERS else "---" for column in range(len(HEADINGS))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ruler, *lines))


def _cells(rows: Sequence[Row]) -> list[Sequence[str]]:
    return [HEADINGS, *map(_line, rows)]


def _line(row: Row) -> tuple[str, ...]:
    return (
        row.what,
        _figure(row.floor, row.unit),
        _figure(row.ours, row.unit),
        f"{row.ratio:.{2 if row.ratio >= 0.1 else 3}f}",
        _aim(row),
        row.grows,
        row.beside,
    )


def _figure(value: float, unit: str) -> str:
    """Write a figure with three digits that count."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def _aim(row: Row) -> str:
    """Say what was aimed at and whether it was reached."""
    if row.aim is None:
        return ""
    verdict = "met" if row.is_met else "missed"
    most = f"{row.aim.most:g}"
    match row.aim.of:
        case "ratio":
            return f"ratio {most}: {verdict}"
        case "ours":
            return f"{most} {row.unit}: {verdict}"
        case "difference":
            return f"floor + {most} {row.unit}: {verdict}"
