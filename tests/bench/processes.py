"""Commands and what they cost."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from reyes.demo.namespaces import Namespace
from tests.bench.figures import alternate

_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took, its children included: seconds, seconds and megabytes."""

    wall: float
    cpu: float
    memory: float


def run(
    namespace: Namespace,
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    stdin: Path = Path(os.devnull),
) -> Cost:
    """Run a command in a namespace, and measure it; RuntimeError if it fails."""
    with TemporaryDirectory() as directory:
        output = Path(directory, "output")
        launcher = [sys.executable, "-I", "-S", str(_LAUNCH), str(stdin), str(output), *argv]
        settings = [f"{name}={value}" for name, value in (environment or {}).items()]
        done = namespace.run(["env", *settings, *launcher])
        if done.returncode != 0:
            raise RuntimeError(f"{argv[0]} did not start: {done.stderr}")
        wall, cpu, memory, code = map(float, done.stdout.split())
        if code != 0:
            said = output.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{' '.join(argv)} ended with {code:.0f}: {said[-2000:]}")
    return Cost(wall, cpu, memory / 1024)


def median_costs(
    ways: Mapping[str, Callable[[], Cost]], rounds: int, warm_up: int = 1
) -> dict[str, Cost]:
    """Return the median of what each way costs."""
    return {
        name: Cost(
            median(cost.wall for cost in costs),
            median(cost.cpu for cost in costs),
            median(cost.memory for cost in costs),
        )
        for name, costs in alternate(ways, rounds, warm_up).items()
    }
