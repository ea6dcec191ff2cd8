"""The kernel's log, line by line: from the kernel itself, else from the journal.

Each line begins with the seconds since the epoch, and `kernel:` stands before what it says.
"""

import errno
import os
import select
import subprocess
import time
from collections.abc import Iterator

from reyes.adapters.programs import find_program
from reyes.errors import ConfigError

_KERNEL_LOG = "/dev/kmsg"
_RECORD_BYTES = 8192
"""The kernel gives one record a read, and none is longer (CONSOLE_EXT_LOG_MAX)."""


def kernel_lines(*, follow: bool) -> Iterator[str]:
    """Yield what the kernel's log holds and, with `follow`, what comes in.

    Raises:
        ConfigError: this user may read neither the kernel's log nor the journal.
    """
    try:
        descriptor = os.open(_KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        yield from _journal_lines(str(error.strerror), follow=follow)
        return
    try:
        for record in _records(descriptor, follow=follow):
            if not record:  # no record of the kernel's is, but containers have /dev/null there
                yield from _journal_lines("not the kernel's", follow=follow)
                return
            line = _line(record)
            if line is not None:
                yield line
    finally:
        os.close(descriptor)


def _records(descriptor: int, *, follow: bool) -> Iterator[bytes]:
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    while True:
        try:
            yield os.read(descriptor, _RECORD_BYTES)
        except BlockingIOError:
            if not follow:
                return
            ready.poll()
        except OSError as error:
            # The kernel has overwritten what was to be read next, and goes on behind it.
            if error.errno != errno.EPIPE:
                raise


def _line(record: bytes) -> str | None:
    """Put a record's time, microseconds since the boot, before it as the journal writes it.

    None if it is no record of the kernel's.
    """
    head, _, rest = record.partition(b";")
    text = rest.partition(b"\n")[0].decode(errors="replace")
    try:
        since_boot = int(head.split(b",")[2]) / 1_000_000
    except (IndexError, ValueError):
        return None
    return f"{time.time() - time.monotonic() + since_boot:.6f} kernel: {text}"


def _journal_lines(reason: str, *, follow: bool) -> Iterator[str]:
    executable = find_program("journalctl")
    if executable is None:
        raise _no_log(f"{_KERNEL_LOG}: {reason}; and there is no journalctl")
    wish = ("--follow", "--lines=all") if follow else ()
    command = (executable, "--dmesg", "--quiet", "--output=short-unix", "--no-pager", *wish)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout  # noqa: S101 - both are piped
        assert process.stderr  # noqa: S101 - both are piped
        try:
            yield from process.stdout
            said = process.stderr.read().strip()
        finally:
            process.terminate()
        if process.wait() != 0:
            raise _no_log(f"{_KERNEL_LOG}: {reason}; journalctl: {said}")


def _no_log(reason: str) -> ConfigError:
    return ConfigError(
        f"cannot read the kernel's log: {reason}",
        "run it as root, or give it lines of the log: `reyes denied -` reads standard input",
    )
