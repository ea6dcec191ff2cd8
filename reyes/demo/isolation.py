"""A process of its own world: namespaces for network, mounts and processes, and files in memory.

There is nothing to clean up. Whichever way the demo ends, SIGKILL included, the kernel takes
down the chain of processes (each dies with its parent), and with the last of them the network
namespaces, the rules in them and the file system.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from reyes.errors import ConfigError

FILES = Path("/run/reyes-demo")
"""Where the demo's files are, on a private tmpfs over /run: iptables wants to lock there, too."""

_TOOLS = {
    "gpg": "gnupg",
    "ip": "iproute2",
    "ipset": "ipset",
    "iptables": "iptables",
    "mount": "mount",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_PRIVATE = ["--net", "--mount", "--pid", "--fork", "--kill-child"]
_FILE_SYSTEM = ["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(FILES.parent)]


def check_tools() -> None:
    """Find what the demo runs; ConfigError names all that is missing."""
    if find_spec("moto") is None or find_spec("flask") is None:
        raise ConfigError(
            "the demo simulates EC2 and S3 with moto's server, which is not installed",
            "pip install 'reyes[demo]'",
        )
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":" + _SYSTEM_PATH
    missing = {package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    if missing:
        packages = " ".join(sorted(missing))
        raise ConfigError(
            f"the demo needs these system packages: {packages}", f"apt-get install {packages}"
        )


def run_isolated(argv: Sequence[str]) -> int:
    """Run a command in namespaces of its own, until it or this process ends."""
    last_will = ["setpriv", "--pdeathsig", "KILL"]
    status = subprocess.call([*last_will, "unshare", *_flags(), *argv])
    return status if status >= 0 else 128 - status


def enter(endpoint: str) -> None:
    """Make this process's files and environment its own; only for what `run_isolated` runs."""
    if os.getpid() != 1:
        raise RuntimeError("not in a process namespace of its own, would cover the real /run")
    subprocess.run(_FILE_SYSTEM, check=True)
    FILES.mkdir(mode=0o700)
    kept = _kept(os.environ)
    os.environ.clear()
    os.environ.update(
        kept,
        AWS_ACCESS_KEY_ID="demo",
        AWS_SECRET_ACCESS_KEY="demo",  # noqa: S106 - the simulation takes any
        AWS_CONFIG_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
        AWS_ENDPOINT_URL=endpoint,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        PYTHONDONTWRITEBYTECODE="1",
        TMPDIR=str(FILES),
    )


def _kept(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would lead commands to other accounts, keys, proxies or a log."""
    unwanted = ("AWS_", "REYES_", "BOTO", "GNUPG", "GPG_", "JOURNAL_STREAM")
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(unwanted) and not name.lower().endswith("_proxy")
    }


def _flags() -> list[str]:
    """Find the way to private namespaces: as root directly, else in a user namespace."""
    ways = [["--map-root-user", *_PRIVATE]]
    if os.geteuid() == 0:
        ways.insert(0, _PRIVATE)
    reasons = ""
    for way in ways:
        trial = subprocess.run(
            ["unshare", *way, *_FILE_SYSTEM],  # noqa: S607 - distributions put it in different places
            capture_output=True,
            check=False,
            text=True,
        )
        if trial.returncode == 0:
            return way
        reasons = trial.stderr.strip()
    raise ConfigError(
        f"this system gives {'root' if os.geteuid() == 0 else 'you'} no namespaces of your own:"
        f" {reasons}",
        "run it as root, or let users make them: of the sysctls, user.max_user_namespaces must be"
        " above 0 and, on Ubuntu, kernel.apparmor_restrict_unprivileged_userns 0;"
        " a container needs --privileged",
    )


def reyes_command(*arguments: str) -> list[str]:
    """Return the argument vector that runs `reyes` with the same Python as this process."""
    return [sys.executable, "-m", "reyes", *arguments]
