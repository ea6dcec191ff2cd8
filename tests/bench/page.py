"""docs/performance.md, its plot and its data: written from the figures, never by hand."""

from pathlib import Path

from tests.bench import plot, table
from tests.bench.figures import Figures, from_json, to_json

_TEMPLATE = Path(__file__).with_name("page_template.md")


def render(figures: Figures) -> dict[str, str]:
    """Return the files of the page by name."""
    machine = ", ".join(figures.machine)
    return {
        "performance.md": _TEMPLATE.read_text(encoding="utf-8").format(
            machine=machine,
            minutes=f"{figures.seconds / 60:.1f}",
            table=table.markdown(figures),
        ),
        "performance.svg": plot.draw(figures.curves),
        "performance.json": to_json(figures).decode(),
    }


def write(data: Path, directory: Path) -> None:
    """Write the page of a run's JSON."""
    figures = from_json(data.read_bytes())
    if figures.quick or not figures.curves:
        raise ValueError(f"{data} is of a quick run or of some measures only")
    for name, text in render(figures).items():
        (directory / name).write_text(text, encoding="utf-8")
