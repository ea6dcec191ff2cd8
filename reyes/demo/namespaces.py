"""Network namespaces, each with a thread that works in it.

* A namespace has no name in the file system: it lives as long as its object or one of its
  processes, so a crash leaves nothing behind.
* A socket stays in the namespace in which it was made, whichever thread uses it later.
* A process started by the thread starts in the thread's namespace.
"""

import ctypes
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from reyes.errors import KernelError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000
"""From linux/sched.h; Python has it, and unshare(2) itself, since 3.12."""


class Closing(ABC):
    """Something that is closed at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Namespace(Closing):
    """A network namespace of its own; to make one takes CAP_SYS_ADMIN."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        try:
            self._descriptor = self.call(_enter_new_network)
        except OSError:
            self._thread.shutdown()
            raise
        self.ip("link set lo up")

    def submit(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Future[Result]:
        """Start a function inside; those of one namespace run one after the other."""
        return self._thread.submit(function, *args, **kwargs)

    def call(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run a function inside and wait for it."""
        return self.submit(function, *args, **kwargs).result()

    def run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command inside and return how it ended, whatever its exit code."""
        return self.call(run_command, argv)

    def ip(self, *commands: str) -> None:
        """Run commands of the `ip` tool as one batch; KernelError if one fails."""
        self.call(_ip_batch, commands)

    def sysctl(self, name: str, value: int) -> None:
        """Set a kernel parameter of this namespace, such as `net/ipv4/ip_forward`."""
        self.call(Path("/proc/sys", name).write_text, str(value), encoding="ascii")

    def connect(self, interface: str, peer: "Namespace", peer_interface: str) -> None:
        """Lay a cable (veth pair) to another namespace; both ends are still down."""
        inside = peer._descriptor  # noqa: SLF001 - of its own class
        cable = f"link add {interface} type veth peer name {peer_interface}"
        self.call(_ip_batch, [f"{cable} netns /proc/self/fd/{inside}"], [inside])

    def close(self) -> None:
        """Let go of the namespace: the kernel removes it with its interfaces and rules."""
        self._thread.shutdown()
        os.close(self._descriptor)


def run_command(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command where the calling thread is; its output is kept as text."""
    return subprocess.run(argv, capture_output=True, check=False, text=True)


def _enter_new_network() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no network namespace: {os.strerror(number)}")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _ip_batch(commands: Sequence[str], descriptors: Sequence[int] = ()) -> None:
    done = subprocess.run(
        ["ip", "-batch", "-"],  # noqa: S607 - distributions put it in different places
        input="\n".join(commands),
        pass_fds=descriptors,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise KernelError(f"ip refuses: {done.stderr.strip()}", f"it was told: {commands}")
