"""Followers that are killed: at a command that they run, or at any moment."""

import random
import signal
import time
from dataclasses import dataclass
from typing import Literal

from reyes.adapters.commands import COMMANDS
from tests.kernel.followers import FollowerHost, wait_for
from tests.kernel.generations import COLOURS, UNFILTERED
from tests.kernel.launcher import Launched

When = Literal["instead", "before", "after", "late"]
"""A follower dies instead of a command, before the command does its work, or after that; `late`
is a command that does its work only a second after the follower's death."""

SCRIPT = """
read -r number <"$REYES_TEST/count"
number=$((number + 1))
echo "$number" >"$REYES_TEST/count"
if test "$number" = "$REYES_AT"; then
    read -r follower <"$REYES_TEST/pid"
    case $REYES_WHEN in
    after) {real} "$@"; code=$?; kill -KILL "$follower"; exit "$code" ;;
    *) kill -KILL "$follower" ;;
    esac
    case $REYES_WHEN in
    instead) exit 1 ;;
    late) sleep 1 ;;
    esac
    {real} "$@"; code=$?
    echo done >"$REYES_TEST/straggler"
    exit "$code"
fi
exec {real} "$@"
"""


@dataclass(frozen=True)
class Death:
    """How a follower is to die: at its n-th command, or after so many seconds."""

    at: int = 0
    when: When = "after"
    seconds: float = 0.0


def random_death(chance: random.Random, longest: float) -> Death:
    return Death(seconds=chance.uniform(0, longest))


def make_killers(host: FollowerHost) -> None:
    """Put commands on the host's PATH that kill the follower when they are told to."""
    for command in COMMANDS:
        host.wrap(command, SCRIPT)
    (host.directory / "count").write_text("0\n")


def begin(host: FollowerHost) -> None:
    """Put the first generation in force, and let the next pass read all members back."""
    host.apply(0)
    assert host.run().returncode == 0


def honest_run(host: FollowerHost) -> tuple[int, float]:
    """Put the next generation in force; return how many commands and how many seconds it took."""
    (host.directory / "count").write_text("0\n")
    start = time.monotonic()
    host.apply(host.generation + 1)
    return int((host.directory / "count").read_text()), time.monotonic() - start


def survive(host: FollowerHost, death: Death) -> None:
    """Let the next generation's commit die, look at the packets, and let the next run repair."""
    old, new = host.generation, host.generation + 1
    either = {old % COLOURS if old >= 0 else UNFILTERED, new % COLOURS}
    host.publish(new)
    killed = _die(host, death)
    host.see(*either)
    if death.when in ("before", "late"):
        wait_for((host.directory / "straggler").exists, "the last command ends")
        (host.directory / "straggler").unlink()
    host.settle()
    killed.communicate(30)
    left = host.in_force()
    assert set(left) <= either, f"{death}: neither old nor new"
    assert len(set(left)) == 1, f"{death}: the families are not of one generation: {left}"
    done = host.run()
    assert done.returncode == 0, f"{death}: {done.stdout}"
    assert host.in_force() == (new % COLOURS,) * 2, f"{death}: not repaired"
    needed = 4 + (2 if old >= 0 else 0)
    assert len(host.sets()) == needed, f"{death}: sets are left over: {host.sets()}"


def kill(host: FollowerHost, at: int, command: str = "follower") -> None:
    """Run a command, and kill it after its n-th command of its own."""
    (host.directory / "count").write_text("0\n")
    environment = {"REYES_AT": str(at), "REYES_WHEN": "after"}
    assert host.run(command=command, environment=environment).returncode == -signal.SIGKILL


def _die(host: FollowerHost, death: Death) -> Launched:
    (host.directory / "count").write_text("0\n")
    running = host.launch(environment={"REYES_AT": str(death.at), "REYES_WHEN": death.when})
    if death.seconds:
        time.sleep(death.seconds)
        running.kill()
    running.wait(30)
    if not death.seconds:
        assert running.returncode == -signal.SIGKILL, f"{death}: it lives"
    return running
