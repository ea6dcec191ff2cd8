"""A dress rehearsal: load rules into a throw-away network namespace of this very kernel.

What the kernel refuses there (a match module that is missing, a line it does not understand) is
never tried live. Sets are made without members: those are counted on the live kernel before any
rule names them (plan.CountSets).
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from subprocess import CompletedProcess

from msgspec import Struct

from reyes.adapters.commands import COMMAND_SECONDS, PREFIX, refusal, restore_command
from reyes.adapters.programs import find_program
from reyes.errors import ConfigError, KernelError
from reyes.netfilter.compiler import Dataplane
from reyes.netfilter.ipset import create_text
from reyes.netfilter.iptables import referenced_sets
from reyes.netfilter.live import LiveKernel
from reyes.netfilter.plan import differing, paired
from reyes.netfilter.restore import rehearsal_text


class Command(Struct, frozen=True):
    """A command and what it is fed."""

    argv: tuple[str, ...]
    stdin: str


_FIRST_REFUSED = 100
"""The exit code of the script if the first command is refused; the next command's is one more."""

_NO_NAMESPACE = 1
"""The exit code of `unshare` if it may not make one; the script has no such code."""

_WAYS = (("unshare", "--net"), ("unshare", "--user", "--keep-caps", "--net"))
"""Root needs no user namespace, a service without CAP_SYS_ADMIN does.

No user is mapped into it: to map root takes CAP_SETFCAP."""


def rehearse(dataplane: Dataplane, live: LiveKernel) -> None:
    """Load what is new to a live kernel where nobody is hurt.

    Chains that it shows already have been loaded there before: they are only declared.

    Raises:
        KernelError: the kernel refuses it.
        ConfigError: this process may not make network namespaces.
    """
    parts = [(table, differing(table, now)) for table, now in paired(dataplane.tables, live)]
    chains = [chain for table, new in parts for chain in table.chains if chain.name in new]
    if not chains:
        return
    named = referenced_sets(chains)
    sets = create_text((s for s in dataplane.sets if s.name in named), with_members=False)
    commands = [Command(("ipset", "restore"), sets)] if sets else []
    commands += [
        Command(restore_command(PREFIX[table.family], flush=False), rehearsal_text(table, new))
        for table, new in parts
        if new
    ]
    _run_commands(commands)


def check_possible() -> None:
    """Make the namespace of a rehearsal, and run nothing in it.

    Raises:
        KernelError: the rehearsal would fail, whatever it were about.
        ConfigError: this process may not make network namespaces.
    """
    _run_commands(())


def _run_commands(commands: Sequence[Command]) -> None:
    """Run the commands in one namespace, each fed from its own file; stop at the first refusal."""
    descriptors = [_file_of(command.stdin) for command in commands]
    try:
        script = "".join(
            f"{_command_line(command.argv)} </proc/self/fd/{descriptor} || exit {code}\n"
            for code, (command, descriptor) in enumerate(
                zip(commands, descriptors, strict=True), _FIRST_REFUSED
            )
        )
        done = _run_apart(script, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    failed = done.returncode - _FIRST_REFUSED
    if 0 <= failed < len(commands):
        command = commands[failed]
        error = refusal(command.argv, command.stdin, done.stderr.strip(), done.returncode)
        raise KernelError(f"in the rehearsal {error.message}", "the live kernel was not touched")
    if done.returncode != 0:
        raise KernelError(f"the rehearsal failed: {done.stderr.strip()}")


def _run_apart(script: str, descriptors: Sequence[int]) -> CompletedProcess[str]:
    """Run a script in a network namespace of its own, made in the first way that is allowed."""
    for way in _WAYS:
        done = _run((*way, "/bin/sh", "-c", script), descriptors)
        if done.returncode != _NO_NAMESPACE:
            return done
    raise ConfigError(
        "no rehearsal: this process may not make network namespaces",
        "set follower.rehearsal: false where they are forbidden",
    )


def _command_line(argv: tuple[str, ...]) -> str:
    return shlex.join((_path(argv[0]), *argv[1:]))


def _path(name: str) -> str:
    """Return where a program is or should be: a bare name could mean the working directory."""
    return find_program(name) or f"/usr/bin/{name}"


def _file_of(text: str) -> int:
    """Put text into a file without a name, and return its descriptor: /proc opens it anew."""
    descriptor = os.memfd_create("rehearsal", 0)
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as file:
        file.write(text)
    return descriptor


def _run(argv: tuple[str, ...], descriptors: Sequence[int]) -> CompletedProcess[str]:
    """Run a command; whatever ends the wait for it ends all that it has started, too."""
    try:
        process = subprocess.Popen(
            (_path(argv[0]), *argv[1:]),
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            process_group=0,
        )
    except OSError as error:
        raise ConfigError(
            f"cannot start {argv[0]}: {error.strerror}", "it comes with the package util-linux"
        ) from error
    with process:
        try:
            printed, said = process.communicate(timeout=COMMAND_SECONDS)
        except BaseException as error:
            with suppress(ProcessLookupError):  # all of it has just ended
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                within = f"within {COMMAND_SECONDS} s"
                raise KernelError(f"the rehearsal did not end {within}") from error
            raise
    return CompletedProcess(argv, process.returncode, printed, said)
