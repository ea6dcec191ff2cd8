"""The commands that speak to the packet filter: run them, and say what they refuse.

They are bounded in time and wait for the xtables lock.
"""

import re
import subprocess
from collections.abc import Callable
from typing import TypeVar

from reyes.adapters.programs import find_program
from reyes.errors import ConfigError, KernelError
from reyes.net import Family
from reyes.text import one_line

COMMANDS = ("ipset", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore")

PREFIX = {Family.V4: "iptables", Family.V6: "ip6tables"}
"""What the commands of a family begin with."""

LOCK_WAIT_SECONDS = 10
COMMAND_SECONDS = 60
"""Longer than any honest command takes: 200,000 set members need a second."""

_LINE = re.compile(r"line:? (\d+)")
_CONTEXT_LINES = 5

Parsed = TypeVar("Parsed")


def restore_command(prefix: str, *, flush: bool) -> tuple[str, ...]:
    """Return the command that puts a table in force, over all others' rules only if `flush`."""
    command = (f"{prefix}-restore", "-w", str(LOCK_WAIT_SECONDS))
    return command if flush else (*command, "--noflush")


def read(argv: tuple[str, ...], parse: Callable[[str], Parsed]) -> Parsed:
    """Return what a command prints, parsed; KernelError if that cannot be understood."""
    text = run(argv)
    try:
        return parse(text)
    except ValueError as error:
        raise KernelError(f"{argv[0]} says what cannot be understood: {error}") from error


def run(argv: tuple[str, ...], stdin: str = "") -> str:
    """Run a command, fed with text, and return what it prints.

    Raises:
        ConfigError: it cannot be started, or this user may not do that.
        KernelError: it was refused, or does not end.
    """
    executable = find_program(argv[0])
    if executable is None:
        raise ConfigError(f"cannot find the command {argv[0]}", "install ipset and iptables")
    try:
        done = subprocess.run(
            (executable, *argv[1:]),
            input=stdin.encode(),
            capture_output=True,
            check=False,
            timeout=COMMAND_SECONDS,
            close_fds=False,  # of ours it inherits one end of a pipe: deadman.armed
        )
    except OSError as error:
        raise ConfigError(
            f"cannot start {executable}: {error.strerror}",
            "see that it is a program, and that this host has the interpreter in its first line; "
            "else install ipset and iptables anew",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"{argv[0]} did not end within {COMMAND_SECONDS} s") from error
    # Decoded here, because Popen would take a carriage return in a comment for a line's end.
    if done.returncode == 0:
        return done.stdout.decode(errors="replace")
    said = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
    raise refusal(argv, stdin, said, done.returncode)


def refusal(argv: tuple[str, ...], stdin: str, said: str, code: int) -> KernelError | ConfigError:
    """Make the error of a command that failed, with the line at fault and its neighbours."""
    # A status has the first line alone, and iptables says in its second one what is wrong.
    reason = one_line(said) or f"exit code {code}"
    if "Permission denied" in said or "Operation not permitted" in said:
        return ConfigError(
            f"{argv[0]} may not do that: {reason}",
            "run it as root, or with CAP_NET_ADMIN and CAP_NET_RAW",
        )
    where = _LINE.search(said)
    shown = _neighbours(stdin, int(where[1])) if where and stdin else ""
    return KernelError(f"{argv[0]} refused: {reason}{shown}")


def _neighbours(text: str, line: int) -> str:
    """Show the line that was refused with those around it."""
    lines = text.splitlines()
    first = max(1, line - _CONTEXT_LINES)
    last = min(len(lines), line + _CONTEXT_LINES)
    shown = (
        f"{'>' if number == line else ' '} {number:5} {lines[number - 1]}"
        for number in range(first, last + 1)
    )
    return "\n" + "\n".join(shown)
