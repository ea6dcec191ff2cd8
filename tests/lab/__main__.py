"""python -m tests.lab: real IPsec on a real kernel; exit code 0 if all checks passed."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab.prepare import prepare


def main() -> int:
    """Prepare outside, run inside, and return the exit code."""
    with TemporaryDirectory(prefix="reyes-lab-", dir="/tmp") as directory:
        prepare(Path(directory))
        runner = Path(__file__).with_name("run")
        return subprocess.call([runner, sys.executable, "-m", "tests.lab.guest", directory])


if __name__ == "__main__":
    sys.exit(main())
