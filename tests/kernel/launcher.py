"""The `reyes` command in processes that need no time to start.

A launcher imports the command once and forks for each run: what runs is the command itself, with
a process of its own, its own environment and its own standard streams. Starting Python and
importing takes longer than all the rest of a run.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn, Self

from reyes.demo.namespaces import Namespace

_MOST = 2**16


class Launched:
    """A run of the command; as much of `subprocess.Popen` as is needed."""

    def __init__(self, launcher: "Launcher", pid: int, stdout: IO[str]) -> None:
        self.pid = pid
        self.stdout = stdout
        self._launcher = launcher

    @property
    def returncode(self) -> int:
        return self._launcher.codes[self.pid]

    def poll(self) -> int | None:
        self._launcher.listen(0)
        return self._launcher.codes.get(self.pid)

    def wait(self, timeout: float) -> int:
        """Wait for its end, however long what it started keeps its output open."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("reyes", timeout)
            self._launcher.listen(end - time.monotonic())
        return self.returncode

    def communicate(self, timeout: float) -> str:
        """Wait for its end and that of all that it started, and return what it said."""
        self.wait(timeout)
        with self.stdout:
            return self.stdout.read()

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait(10)
        self.stdout.close()


class Launcher:
    """Runs the command in a namespace."""

    def __init__(self, namespace: Namespace, environment: Mapping[str, str]) -> None:
        self.codes: dict[int, int] = {}
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = namespace.call(
                subprocess.Popen,
                [sys.executable, "-m", "tests.kernel.launcher", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
            )

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Launched:
        output, theirs = os.pipe()
        order = json.dumps({"arguments": arguments, "environment": dict(environment)}).encode()
        socket.send_fds(self._channel, [order], [theirs])
        os.close(theirs)
        answer = self._answer()
        while "started" not in answer:
            self._note(answer)
            answer = self._answer()
        return Launched(self, answer["started"], os.fdopen(output))

    def listen(self, seconds: float) -> None:
        """Take note of what has ended, for so long at most."""
        if select.select([self._channel], [], [], max(0, seconds))[0]:
            self._note(self._answer())

    def close(self) -> None:
        self._channel.close()
        self._process.wait(10)

    def _answer(self) -> dict[str, int]:
        answer: dict[str, int] = json.loads(self._channel.recv(_MOST))
        return answer

    def _note(self, answer: dict[str, int]) -> None:
        self.codes[answer["ended"]] = answer["code"]


def main() -> None:
    """Fork for each order that arrives, and tell how each run ended."""
    import reyes.cli.follower
    import reyes.cli.rollback  # noqa: F401 - imported once for all runs

    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _report(channel)
        if channel.fileno() in ready:
            order, descriptors, _, _ = socket.recv_fds(channel, _MOST, 1)
            if not order:
                return
            pid = os.fork()
            if pid == 0:
                channel.close()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _become(json.loads(order), descriptors[0])
            os.close(descriptors[0])
            channel.send(json.dumps({"started": pid}).encode())


def _report(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended = {"ended": pid, "code": os.waitstatus_to_exitcode(status)}
        channel.send(json.dumps(ended).encode())


def _become(order: dict[str, object], output: int) -> NoReturn:
    """Be the command from here on, as the entry point would start it."""
    from reyes.cli import main as command

    arguments, environment = order["arguments"], order["environment"]
    assert isinstance(arguments, list)
    assert isinstance(environment, dict)
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.close(output)
        os.environ.clear()
        os.environ.update(environment)
        Path(environment["REYES_TEST"], "pid").write_text(f"{os.getpid()}\n", encoding="ascii")
        command(arguments, prog_name="reyes")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does, ahead of os._exit
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
