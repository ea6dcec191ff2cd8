"""A host whose follower is the real command, in a process of its own; packets tell what it did."""

import ctypes
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any, Self

from reyes.adapters.commands import COMMANDS
from reyes.adapters.programs import find_program
from reyes.demo.namespaces import Closing
from reyes.net import Family
from reyes.ruleset import Content
from tests.bench.aws_server import AwsServer
from tests.gnupg_home import gnupg_home, gpg_in
from tests.kernel.generations import (
    COLOURS,
    HERE,
    INSTANCE,
    PACKETS,
    SAFE,
    UNFILTERED,
    expected,
    policy,
    shown,
)
from tests.kernel.judge import Backend
from tests.kernel.launcher import Launched, Launcher
from tests.kernel.packets import Wire
from tests.worlds import document

PATIENCE = 30.0

_CLONE_NEWNS = 0x00020000
"""From linux/sched.h."""

IMPATIENT = """
from reyes.adapters import commands, guard, rehearsal
from reyes.cli import main
for module in (commands, guard, rehearsal):
    module.COMMAND_SECONDS = 2
main()
"""
"""The command with less patience for the commands that it starts."""


class Keys:
    """One signing key, and a keyring for followers."""

    def __init__(self) -> None:
        self._opened = ExitStack()

    def sign(self, text: bytes) -> bytes:
        return self._gpg.sign(text).blob

    def __enter__(self) -> Self:
        home = self._opened.enter_context(gnupg_home())
        self.fingerprint = home.generate("kernel tests")
        self.secret = home.path
        self.keyring = Path(self._opened.enter_context(tempfile.TemporaryDirectory()))
        home.export(home.path / "trusted.gpg", self.fingerprint)
        shutil.copy(home.path / "trusted.gpg", self.keyring)
        self._gpg = gpg_in(home.path, self.fingerprint)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


class FollowerHost(Closing):
    """A host on a wire, its configuration and state, and the command that is run on it."""

    def __init__(self, keys: Keys, backend: Backend = "nft", **follower: Any) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="reyes-host-"))
        self.state = self.directory / "state"
        self.generation = UNFILTERED
        self._has_own_mounts = False
        self._keys = keys
        self._serials = itertools.count(1)
        self._settings = {
            "instance_id": INSTANCE,
            "region": "us-west-2",
            "filtered_cidrs": ["10.0.0.0/8", "fd00::/8"],
            "failsafe": [{"cidr": SAFE[v], "protocol": "tcp", "port": 22} for v in (4, 6)],
            "state_directory": str(self.state),
            "disable_file": str(self.directory / "disabled"),
        }
        self.configure(**follower)
        (self.directory / "bin").mkdir()
        self.use(backend)
        self.wire = Wire(list(HERE.values()))
        self._launcher = Launcher(self.wire.host, self.environment())

    def configure(self, **follower: Any) -> None:
        """Write the configuration, with these settings besides."""
        self._settings.update(follower)
        text = json.dumps(
            {
                "environment": "production",
                "s3": {"bucket": "acme-reyes", "key": "ruleset.gpg", "region": "us-west-2"},
                "signing": {
                    "keyring_directory": str(self._keys.keyring),
                    "signing_key": self._keys.fingerprint,
                },
                "follower": self._settings,
            }
        )
        (self.directory / "config.yaml").write_text(text)

    def publish(
        self, generation: int, content: Content | None = None, ahead: int = 0, **header: Any
    ) -> None:
        """Make the ruleset of a generation the newest; `ahead` is how far its maker's clock is."""
        self.generation = generation
        now = int(time.time()) + ahead
        header.setdefault("serial", (now - 60) * 1000 + next(self._serials))
        text = document(now, content or policy(generation), **header)
        (self.directory / "ruleset.gpg").write_bytes(self._keys.sign(text))

    def publish_to(self, store: AwsServer, generation: int) -> None:
        """Make the ruleset of a generation what a store has."""
        self.publish(generation)
        store.blob = (self.directory / "ruleset.gpg").read_bytes()

    def start(
        self,
        *arguments: str,
        command: str = "follower",
        file: bool = True,
        impatient: bool = False,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        before: str = "",
        **popen: Any,
    ) -> Popen[str]:
        """Start the command on the host; `file` reads the newest ruleset instead of S3's.

        `before` is what the shell does that becomes the command.
        """
        how = ("-c", IMPATIENT) if impatient else ("-m", "reyes")
        argv = [sys.executable, *how, *self._arguments(*arguments, command=command, file=file)]
        # The shell leaves its number behind and becomes the command.
        script = f'{before}echo $$ >"$REYES_TEST/pid"; exec "$@"'
        shell = ["sh", "-c", script, "sh", *argv]
        return self.wire.host.call(
            lambda: Popen(
                shell,
                env=self.environment(environment),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                **popen,
            )
        )

    def launch(
        self,
        *arguments: str,
        command: str = "follower",
        file: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Launched:
        """Start the command as `start` does, but at once and without anything special."""
        return self._launcher.start(
            self._arguments(*arguments, command=command, file=file), self.environment(environment)
        )

    def run(self, *arguments: str, **how: Any) -> CompletedProcess[str]:
        """Run the command on the host to its end."""
        with self.launch(*arguments, **how) as running:
            said = running.communicate(PATIENCE)
            return CompletedProcess(arguments, running.returncode, said)

    def run_alone(self, *arguments: str, **how: Any) -> CompletedProcess[str]:
        """Run the command to its end in a process that is not launched but started."""
        with self.start(*arguments, **how) as running:
            said, _ = running.communicate(timeout=PATIENCE)
            return CompletedProcess(arguments, running.returncode, said)

    def _arguments(self, *arguments: str, command: str, file: bool) -> list[str]:
        words = [*command.split(), "--config", str(self.directory / "config.yaml"), *arguments]
        if file and command.endswith("follower"):
            words += ["--ruleset", str(self.directory / "ruleset.gpg")]
        return words

    def apply(self, generation: int, content: Content | None = None) -> None:
        """Publish a generation and put it in force."""
        self.publish(generation, content)
        done = self.run()
        assert done.returncode == 0, done.stdout
        assert self.in_force() == (generation % COLOURS,) * 2

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not _is_ours_alone(name)},
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "REYES_TEST": str(self.directory),
            "AWS_EC2_METADATA_DISABLED": "true",
            **(more or {}),
        }

    def in_force(self) -> tuple[int, ...]:
        """Tell which colour is in force in each family, by packets; fail if it is none, whole."""
        rows = self._verdicts()
        for family, row in rows.items():
            assert row in expected(family), shown(family, row)
        return tuple(expected(family)[row] for family, row in rows.items())

    def see(self, *generations: int) -> None:
        """Look while the rules may change: fail if packets met anything but these generations.

        A change may come in the middle of a row: what is before it met one, what is behind
        another.
        """
        for family, row in self._verdicts().items():
            allowed = [
                right for right, colour in expected(family).items() if colour in generations
            ]
            assert any(
                row[:cut] == first[:cut] and row[cut:] == second[cut:]
                for cut in range(len(row) + 1)
                for first in allowed
                for second in allowed
            ), shown(family, row)

    def wait_until_in_force(self, generation: int) -> None:
        """Look until all packets meet this generation; what they meet before does not count."""

        def is_in_force() -> bool:
            rows = self._verdicts()
            return all(expected(family).get(row) == generation for family, row in rows.items())

        wait_for(is_in_force, f"generation {generation} is in force")

    def _verdicts(self) -> dict[Family, tuple[bool, ...]]:
        self.wire.forget()
        passed = self.wire.probe([*PACKETS[Family.V4], *PACKETS[Family.V6]])
        half = len(PACKETS[Family.V4])
        return {Family.V4: tuple(passed[:half]), Family.V6: tuple(passed[half:])}

    def settle(self) -> None:
        """Wait until no follower and no dead man's switch is at work: they hold the lock."""
        path = self.state / "lock"

        def is_free() -> bool:
            with path.open() as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        if path.exists():
            wait_for(is_free, "the lock is given back")

    def reboot(self) -> None:
        """Lose all of the kernel's rules and sets."""
        for version in (4, 6):
            self.iptables("-F", version=version)
            self.iptables("-X", version=version)
        self.ipset("destroy")
        assert self.in_force() == (UNFILTERED, UNFILTERED)

    def answer(self, *members: str) -> None:
        """Let the neighbour be these members in earnest, with a network stack that answers."""
        neighbour = self.wire.neighbour
        neighbour.sysctl("net/ipv6/conf/eth0/disable_ipv6", 0)
        neighbour.ip(
            *(f"address add {member} dev eth0 nodad" for member in members),
            *(f"route add {here} dev eth0" for here in HERE.values()),
        )

    def ipset(self, *arguments: str) -> str:
        return self.wire.run(["ipset", *arguments]).stdout

    def iptables(self, *arguments: str, version: int = 4) -> None:
        prefix = "iptables" if version == 4 else "ip6tables"
        self.wire.run([f"{prefix}-{self.backend}", "-w", *arguments])

    def saved(self, version: int = 4) -> list[str]:
        prefix = "iptables" if version == 4 else "ip6tables"
        text = self.wire.run([f"{prefix}-{self.backend}-save", "-t", "filter"]).stdout
        return [line for line in text.splitlines() if line.startswith("-A ")]

    def sets(self) -> set[str]:
        return set(self.ipset("list", "-n").split())

    def kernel(self) -> tuple[list[str], list[str], str]:
        """Say all that is in the kernel, to see whether anything changed."""
        return self.saved(4), self.saved(6), self.ipset("save")

    def mount(self, *arguments: str) -> None:
        """Mount something for this host's processes alone."""
        if not self._has_own_mounts:
            self.wire.host.call(_leave_mounts)
            self.wire.run(["mount", "--make-rprivate", "/"])
            self._has_own_mounts = True
            self._launcher.close()
            self._launcher = Launcher(self.wire.host, self.environment())
        self.wire.run(["mount", *arguments])

    def remembered(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "state.json").read_bytes())
        return found

    def close(self) -> None:
        self._launcher.close()
        self.wire.close()
        shutil.rmtree(self.directory)

    def use(self, backend: Backend) -> None:
        """Let the commands of iptables be those of one backend."""
        self.backend = backend
        for command in COMMANDS:
            self.wrap(command)

    def wrap(self, command: str, script: str = 'exec {real} "$@"') -> None:
        """Put a shell script in the place of a command; `{real}` is the command itself."""
        real = find_program(command.replace("tables-", f"tables-{self.backend}-"))
        assert real, f"{command} is not installed"
        path = self.directory / "bin" / command
        path.write_text("#!/bin/sh\n" + script.replace("{real}", real))
        path.chmod(0o755)


def _is_ours_alone(name: str) -> bool:
    """Tell whether a variable is one that no unit sets, and that would change what is tested."""
    return name.startswith("AWS_") or name == "PYTHONUNBUFFERED"


def _leave_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Look again and again until something holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.005)
