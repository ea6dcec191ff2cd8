"""Run a command and print what it cost: launch.py STDIN OUTPUT COMMAND [ARGUMENT...].

A process of its own, because the kernel counts the memory of whoever starts a command as the
command's own until it has replaced it: only a small one can measure small ones.
Prints wall seconds, CPU seconds and peak memory in kB, children included, and the exit code.
"""

import os
import sys
import time


def main() -> None:
    stdin, output, *argv = sys.argv[1:]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    started = time.monotonic()
    child = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    wall = time.monotonic() - started
    cpu = usage.ru_utime + usage.ru_stime
    sys.stdout.write(f"{wall} {cpu} {usage.ru_maxrss} {os.waitstatus_to_exitcode(status)}")


main()
