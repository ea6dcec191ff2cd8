"""The two backends of iptables, nft and legacy: each sees only its own rules."""

import os
import re
from pathlib import Path
from typing import Literal

from reyes.adapters.commands import PREFIX, run
from reyes.adapters.programs import find_program
from reyes.errors import KernelError, ReyesError
from reyes.net import Family

Backend = Literal["nft", "legacy"]

_BACKENDS: dict[str, Backend] = {}
"""By program, as far as they were asked."""

_OTHER: dict[Backend, Backend] = {"nft": "legacy", "legacy": "nft"}
_WITHOUT_NFT = ("Failed to initialize nft", "rule set generation id: Invalid argument")
"""What iptables-nft-save says where the kernel has no nfnetlink, or no nf_tables."""
_RULE = re.compile(r"^-A ", re.MULTILINE)


def refuse_mixed(family: Family) -> None:
    """Refuse to work if what is read are the rules of one backend, and what is written another's.

    Raises:
        KernelError: so it is.
    """
    prefix = PREFIX[family]
    reads, writes = _backend_of(f"{prefix}-save"), backend_in_use(family)
    if reads != writes:
        raise KernelError(
            f"{prefix}-save is that of {reads}, and {prefix}-restore that of {writes}",
            f"choose one backend with update-alternatives --config {prefix}, and see which"
            f" directory of PATH holds another {prefix}-save or {prefix}-restore",
        )


def is_mixed(family: Family) -> bool:
    """Tell whether a family's commands are of both backends, or are not all of use."""
    try:
        refuse_mixed(family)
    except ReyesError:
        return True
    return False


def refuse_split(family: Family) -> None:
    """Refuse to work if nft and legacy both hold rules: each sees only its own.

    Raises:
        KernelError: so it is, or the other backend cannot be read.
    """
    prefix, other = PREFIX[family], other_backend(family)
    if holds_rules(family, other):
        raise KernelError(
            f"the tables of {prefix} are split: this host's {prefix} uses"
            f" {backend_in_use(family)}, but there are rules in {other}",
            f"move them, or choose one backend with update-alternatives --config {prefix}"
            f" ({prefix}-{other}-save shows them)",
        )


def backend_in_use(family: Family) -> Backend:
    """Tell which backend this host's commands write to."""
    return _backend_of(f"{PREFIX[family]}-restore")


def other_backend(family: Family) -> Backend:
    """Tell which backend they do not write to."""
    return _OTHER[backend_in_use(family)]


def holds_rules(family: Family, backend: Backend) -> bool:
    """Tell whether there are rules of a family in a backend.

    Raises:
        KernelError: it cannot be read.
    """
    prefix = PREFIX[family]
    if backend == "legacy":
        # iptables-legacy-save would load the tables that it is asked about.
        loaded = Path(f"/proc/thread-self/net/{prefix.replace('tables', '_tables')}_names")
        try:
            if not loaded.read_text(encoding="ascii").strip():
                return False
        except OSError:
            return False
    command = f"{prefix}-{backend}-save"
    if find_program(command) is None:
        return False
    try:
        return _RULE.search(run((command,))) is not None
    except KernelError as error:
        if any(words in error.message for words in _WITHOUT_NFT):
            return False
        raise


def _backend_of(command: str) -> Backend:
    """Ask a program once, by whichever of its commands: usually all four are of one."""
    path = find_program(command)
    program = os.path.realpath(path) if path else ""
    if program not in _BACKENDS:
        _BACKENDS[program] = "nft" if "nf_tables" in run((command, "--version")) else "legacy"
    return _BACKENDS[program]
