"""The kernel's settings of connection tracking, of the network namespace that we are in."""

from pathlib import Path

from reyes.errors import KernelError

_SETTINGS = Path("/proc/sys/net/netfilter")
_LOOSE = _SETTINGS / "nf_conntrack_tcp_loose"


def raise_conntrack_max(wanted: int) -> int | None:
    """Raise nf_conntrack_max to at least `wanted`; return the former value if it was lower.

    Where nothing is tracked there is nothing to raise.

    Raises:
        KernelError: the kernel refuses, as it does in all but the first network namespace.
    """
    path = _SETTINGS / "nf_conntrack_max"
    try:
        before = int(path.read_text(encoding="ascii"))
        if before >= wanted:
            return None
        path.write_text(f"{wanted}\n", encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise KernelError(
            f"cannot raise {path} to {wanted}: {error}",
            "leave follower.nf_conntrack_max out where Reyes may not change it",
        ) from error
    return before


def is_loose() -> bool:
    """Tell whether the kernel takes up TCP connections in the middle that it does not know."""
    try:
        return _LOOSE.read_text(encoding="ascii") != "0\n"
    except FileNotFoundError:
        return False  # nothing is tracked


def forbid_loose() -> bool:
    """Let TCP connections be known from their beginning alone; tell whether that is new.

    Raises:
        KernelError: the kernel refuses, as it does where /proc/sys is read-only.
    """
    try:
        if not is_loose():
            return False
        _LOOSE.write_text("0\n", encoding="ascii")
    except OSError as error:
        raise KernelError(
            f"cannot set {_LOOSE} to 0: {error}",
            "set it where Reyes may not: till then a removed member may get back in",
        ) from error
    return True
