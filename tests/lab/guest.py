"""The part of the lab that runs inside its kernel, as root: guest DIRECTORY.

The directory holds what was prepared outside.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.checks import table
from tests.lab.places import FILES
from tests.lab.story import Story

_BACKEND = "/usr/sbin/xtables-legacy-multi"
_COMMANDS = [
    f"{family}{command}"
    for family in ("iptables", "ip6tables")
    for command in ("", "-save", "-restore")
]


def main() -> int:
    """Return 0 if every check passed."""
    _use_legacy_iptables()
    # A copy belongs to root, whoever made the original.
    shutil.copytree(sys.argv[1], FILES)
    subprocess.run(["modprobe", "ipv6"], check=True)
    story = Story()
    try:
        story.tell()
    finally:
        sys.stdout.write(f"\n{table(story.checks)}\n\n")
    failed = sum(not check.passed for check in story.checks)
    sys.stdout.write(f"{len(story.checks)} checks, {failed} failed\n")
    return 1 if failed else 0


def _use_legacy_iptables() -> None:
    """Make this the kind of host that has no nf_tables: the kernel has none that does IP."""
    for command in _COMMANDS:
        Path("/usr/local/sbin", command).symlink_to(_BACKEND)
    block = "install nf_tables /bin/false\n"
    Path("/etc/modprobe.d/reyes-lab.conf").write_text(block, encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
