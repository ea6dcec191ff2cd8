"""Packet cost against the number of rules, as SVG with logarithmic axes."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil, floor, log10

from tests.bench.figures import Curve

_WIDTH, _HEIGHT = 820, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 580, 50, 360
_COLOURS = ("#0969da", "#cf222e", "#bf3989", "#1a7f37", "#bc4c00", "#9a6700")
_HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    f' width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-labelledby="title"'
    ' font-family="Helvetica, Arial, sans-serif" font-size="13">'
)
_STYLE = """<style>
    .paper { fill: #ffffff; stroke: #d0d7de; }
    text { fill: #1f2328; }
    .grid { stroke: #d0d7de; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; stroke: #30363d; }
      text { fill: #e6edf3; }
      .grid { stroke: #30363d; }
    }
  </style>"""


class _Axes:
    """Where a point of the curves is on the paper."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        rules = [count for curve in curves for count, _ in curve.points]
        costs = [cost for curve in curves for _, cost in curve.points]
        self.rules = (floor(log10(min(rules))), ceil(log10(max(rules))))
        self.costs = (floor(log10(min(costs))), ceil(log10(max(costs))))

    def x(self, count: float) -> float:
        first, last = self.rules
        return _LEFT + (log10(count) - first) / (last - first) * (_RIGHT - _LEFT)

    def y(self, cost: float) -> float:
        first, last = self.costs
        return _BOTTOM - (log10(cost) - first) / (last - first) * (_BOTTOM - _TOP)


def draw(curves: Sequence[Curve]) -> str:
    """Draw the curves, each with its name at its end."""
    axes = _Axes(curves)
    parts = [
        _HEAD,
        '<title id="title">Cost of a denied packet against the number of rules</title>',
        _STYLE,
        f'<rect class="paper" x="1" y="1" width="{_WIDTH - 2}" height="{_HEIGHT - 2}" rx="10"/>',
        f'<text x="{_LEFT}" y="30">cost of the worst denied packet</text>',
        f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 42}" text-anchor="middle">rules</text>',
        *_grid(axes),
        *_lines(axes, curves),
    ]
    return "\n  ".join(parts) + "\n</svg>\n"


def _grid(axes: _Axes) -> Iterator[str]:
    for power in range(axes.rules[0], axes.rules[1] + 1):
        x = axes.x(10**power)
        yield f'<path class="grid" d="M{x:.0f} {_TOP}V{_BOTTOM}"/>'
        yield f'<text x="{x:.0f}" y="{_BOTTOM + 20}" text-anchor="middle">{10**power:,}</text>'
    for power in range(axes.costs[0], axes.costs[1] + 1):
        y = axes.y(10**power)
        yield f'<path class="grid" d="M{_LEFT} {y:.0f}H{_RIGHT}"/>'
        label = f"{10 ** (power - 3):,} µs" if power >= 3 else f"{10**power} ns"
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{label}</text>'


def _lines(axes: _Axes, curves: Sequence[Curve]) -> Iterator[str]:
    labels = _spread([axes.y(curve.points[-1][1]) for curve in curves])
    for number, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [f"{axes.x(count):.1f} {axes.y(cost):.1f}" for count, cost in curve.points]
        yield f'<path fill="none" stroke="{colour}" stroke-width="2" d="M{"L".join(places)}"/>'
        yield f'<path stroke="{colour}" stroke-width="2" d="M{_RIGHT + 8} {label:.0f}h18"/>'
        yield f'<text x="{_RIGHT + 32}" y="{label + 4:.0f}">{curve.name}</text>'


def _spread(wanted: Sequence[float]) -> list[float]:
    """Move labels apart that would cover each other, in the order of their lines."""
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    places = list(wanted)
    for above, below in pairwise(order):
        places[below] = max(places[below], places[above] + 18)
    return places
