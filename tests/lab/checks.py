"""The table of what was expected and what was."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table."""

    scope: str
    ruleset: str
    packet: str
    way: str
    expected: str
    found: str

    @property
    def passed(self) -> bool:
        """Tell whether it is as it should be."""
        return self.expected == self.found


def table(checks: Sequence[Check]) -> str:
    """Lay the checks out for people."""
    heading = ("", *(field.name for field in fields(Check)))
    rows = [heading, *(("ok" if check.passed else "BAD", *astuple(check)) for check in checks)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
