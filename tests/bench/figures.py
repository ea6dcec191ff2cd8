"""What was measured, as values: rows of the one table, curves of the plot, and their JSON."""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

Result = TypeVar("Result")


class Aim(Struct, frozen=True):
    """The most that a row's ratio, figure or difference to its floor should be."""

    of: Literal["ratio", "ours", "difference"]
    most: float


class Row(Struct, frozen=True, kw_only=True):
    """One figure beside its floor, both in `unit`; `grows` says how it grows with what."""

    measure: str
    what: str
    beside: str
    unit: str
    floor: float
    ours: float
    aim: Aim | None = None
    grows: str = ""

    @property
    def ratio(self) -> float:
        return self.ours / self.floor

    @property
    def is_met(self) -> bool | None:
        if self.aim is None:
            return None
        found = {
            "ratio": self.ratio,
            "ours": self.ours,
            "difference": self.ours - self.floor,
        }
        return found[self.aim.of] <= self.aim.most


class Curve(Struct, frozen=True, kw_only=True):
    """Nanoseconds that one denied packet costs, by the number of rules."""

    name: str
    points: tuple[tuple[int, float], ...]


class Figures(Struct, frozen=True, kw_only=True):
    """A whole run and how long it took; `machine` are facts in words."""

    machine: tuple[str, ...]
    quick: bool
    seconds: float
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...] = ()


def to_json(figures: Figures) -> bytes:
    return msgspec.json.format(msgspec.json.encode(figures)) + b"\n"


def from_json(text: bytes) -> Figures:
    return msgspec.json.decode(text, type=Figures)


def alternate(
    ways: Mapping[str, Callable[[], Result]], rounds: int, warm_up: int = 1
) -> dict[str, list[Result]]:
    """Take each way in turn, again and again: what disturbs the machine disturbs all alike."""
    found: dict[str, list[Result]] = {name: [] for name in ways}
    for number in range(warm_up + rounds):
        for name, run in ways.items():
            result = run()
            if number >= warm_up:
                found[name].append(result)
    return found


def medians(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median of each way's figures."""
    return {name: median(found) for name, found in alternate(ways, rounds).items()}


def growth(figures: Mapping[int, float], of: str) -> str:
    """Say by what factor a figure grew from the smallest to the largest number of something."""
    first, last = min(figures), max(figures)
    return f"x {figures[last] / figures[first]:.1f} from {first:,} to {last:,} {of}"
