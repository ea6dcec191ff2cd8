"""The machine in words: what a reader must know to compare figures, and nothing that names it."""

import os
import platform
import re
import subprocess
from pathlib import Path

_VERSION = re.compile(r"v?(\d+(?:\.\d+)+)")


def describe_machine() -> tuple[str, ...]:
    return (
        _processors(),
        f"Linux {'.'.join(platform.release().split('.')[:2])}",
        _distribution(),
        f"Python {platform.python_version()}",
        *(f"{command} {_version(command)}" for command in ("iptables", "ipset", "gpg")),
        f"a load of {os.getloadavg()[0]:.1f} from other work",
    )


def _processors() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    virtual = "virtual " if re.search(r"^flags.* hypervisor\b", text, re.MULTILINE) else ""
    return f"{os.cpu_count()} {virtual}CPUs, {model[1] if model else platform.machine()}"


def _distribution() -> str:
    release = platform.freedesktop_os_release()
    return f"{release['NAME'].removesuffix(' GNU/Linux')} {release.get('VERSION_ID', '')}".strip()


def _version(command: str) -> str:
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    found = _VERSION.search(said.stdout)
    return found[1] if found else said.stdout.strip()
