"""The size of connection tracking's table."""

from pathlib import Path

from reyes.errors import KernelError


def raise_conntrack_max(wanted: int) -> int | None:
    """Raise nf_conntrack_max to at least `wanted`; return the former value if it was lower.

    Raises:
        KernelError: the kernel refuses, as it does in all but the first network namespace.
    """
    path = Path("/proc/sys/net/netfilter/nf_conntrack_max")
    try:
        before = int(path.read_text(encoding="ascii"))
        if before >= wanted:
            return None
        path.write_text(f"{wanted}\n", encoding="ascii")
    except (OSError, ValueError) as error:
        raise KernelError(
            f"cannot raise {path} to {wanted}: {error}",
            "leave follower.nf_conntrack_max out where Reyes may not change it",
        ) from error
    return before
