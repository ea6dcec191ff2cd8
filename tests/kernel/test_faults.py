"""Commands that fail, disks that are full, files that are corrupt, and others who meddle.

Whatever it is, packets see the old policy or the new one, the exit code says which kind of trouble
it was, and the next run puts things right.
"""

import json
import os
import subprocess
import time

import pytest

from tests.kernel.followers import FollowerHost, Keys
from tests.kernel.generations import COLOURS, UNFILTERED

pytestmark = pytest.mark.kernel

IN_THE_REHEARSAL = '! test "$(readlink /proc/self/ns/net)" = "$(cat "$REYES_TEST/network")"'
RESTORES = ("ipset", "iptables-restore", "ip6tables-restore")
FAULTS = {
    "exit code 1": "exit 1",
    "exit code 0 without effect": "exit 0",
    "it takes everything, and fails": '{real} "$@"; exit 1',
}
IGNORED = 'set -- env --ignore-signal=CHLD "$@"; '
HANGS = {
    "ipset": "exec sleep 600",
    "iptables-restore": "exec sleep 600",
    "ip6tables-restore": '{real} "$@"; exec sleep 600',
}


def spoil(host: FollowerHost, command: str, fault: str) -> None:
    """Let a command fail on the live kernel where it changes something."""
    network = host.wire.run(["readlink", "/proc/self/ns/net"]).stdout
    (host.directory / "network").write_text(network)
    changes = '*" list "*|*" save "*|*--version*' if command == "ipset" else "*--version*"
    host.wrap(
        command,
        f"""
if {IN_THE_REHEARSAL}; then exec {{real}} "$@"; fi
case " $* " in {changes}) exec {{real}} "$@" ;; esac
{fault}
""",
    )


@pytest.mark.parametrize(
    ("command", "fault"),
    [(command, fault) for command in RESTORES for fault in FAULTS.values()] + list(HANGS.items()),
)
def test_a_command_that_fails_leaves_the_old_policy(
    host: FollowerHost, command: str, fault: str
) -> None:
    host.apply(0)
    before = host.sets()
    spoil(host, command, fault)
    host.publish(1)
    done = host.run_alone(impatient=True)
    assert done.returncode == 25, done.stdout
    host.settle()
    assert host.in_force() == (0, 0)
    host.wrap(command)
    assert host.run().returncode == 0
    assert host.in_force() == (1, 1)
    assert len(host.sets()) == 6
    assert before < host.sets()


def test_a_command_that_fails_every_time_is_told_and_the_family_it_is_of_is_repaired_later(
    host: FollowerHost,
) -> None:
    """IPv4's way back is refused for good: the other family goes back all the same."""
    host.apply(0)
    host.publish(1)
    # The first call works, all others fail: so does the undoing of a step.
    spoil(
        host,
        "iptables-restore",
        'if test -e "$REYES_TEST/once"; then exit 1; fi; touch "$REYES_TEST/once"; '
        'exec {real} "$@"',
    )
    spoil(host, "ip6tables-restore", '{real} "$@"; exit 1')
    done = host.run()
    assert done.returncode == 25, done.stdout
    assert "could not undo" in done.stdout
    host.settle()
    assert host.in_force() == (1, 0)
    for command in ("iptables-restore", "ip6tables-restore"):
        host.wrap(command)
    assert host.run().returncode == 0
    assert host.in_force() == (1, 1)


def test_of_two_troubles_the_kernels_is_told(host: FollowerHost) -> None:
    host.apply(0)
    (host.directory / "ruleset.gpg").unlink()
    assert host.run().returncode == 78
    host.wrap("iptables-save", "echo broken >&2; exit 1")
    done = host.run()
    assert done.returncode == 25, done.stdout
    assert "iptables-save refused: broken" in done.stdout


@pytest.mark.parametrize(
    "streams",
    [">/dev/full 2>&1", "2>/dev/full", '3<>"$REYES_TEST/deaf" >"$REYES_TEST/deaf" 2>&1 3<&-'],
    ids=["full", "full for errors", "closed pipe"],
)
def test_words_that_nobody_hears_change_no_exit_code(host: FollowerHost, streams: str) -> None:
    os.mkfifo(host.directory / "deaf")
    host.apply(0)
    host.apply(1)
    unheard = f"exec {streams}; "
    good = (host.directory / "ruleset.gpg").read_bytes()
    (host.directory / "ruleset.gpg").write_bytes(b"\x80junk")
    assert host.run_alone(before=unheard).returncode == 21
    (host.directory / "ruleset.gpg").write_bytes(good)
    (host.directory / "disabled").touch()
    assert host.run_alone(before=unheard).returncode == 0
    assert json.loads((host.state / "status.json").read_text())["run"]["outcome"] == "disabled"
    (host.directory / "disabled").unlink()
    assert host.run_alone(command="rollback", before=unheard).returncode == 0
    assert host.in_force() == (0, 0)
    host.publish(2)
    assert host.run_alone(before=unheard).returncode == 0
    assert host.in_force() == (2, 2)
    (host.directory / "config.yaml").write_text("broken")
    assert host.run_alone("--remove", file=False, before=unheard).returncode == 0
    assert host.in_force() == (UNFILTERED, UNFILTERED)


def test_a_parent_that_ignores_the_end_of_children_hides_no_failure(host: FollowerHost) -> None:
    """The kernel keeps no exit code then, and an empty answer would count as an empty table."""
    host.apply(0)
    host.publish(1)
    done = host.run_alone(before=IGNORED)
    assert done.returncode == 0, done.stdout
    assert host.in_force() == (1, 1)
    host.wrap("iptables-save", "exit 1")
    host.publish(2)
    assert host.run_alone(before=IGNORED).returncode == 25
    assert host.in_force() == (1, 1)


def test_a_kernel_that_does_not_answer_does_not_hold_a_run_up(host: FollowerHost) -> None:
    host.apply(0)
    host.configure(deadline=2)
    host.wrap("iptables-save", "exec sleep 30")
    started = time.monotonic()
    done = host.run()
    assert done.returncode == 75, done.stdout
    assert "did not come within 2 s" in done.stdout
    assert time.monotonic() - started < 20
    host.wrap("iptables-save")
    assert host.run().returncode == 0


@pytest.mark.parametrize(
    ("failures", "undone"), [(1, True), (5, False)], ids=["once", "as long as the follower lives"]
)
def test_a_way_back_that_fails_is_tried_again(
    host: FollowerHost, failures: int, undone: bool
) -> None:
    """The follower tries five times, then the dead man's switch does."""
    host.apply(0)
    host.publish(1)
    spoil(
        host,
        "iptables-restore",
        f"""echo >>"$REYES_TEST/calls"
number=$(wc -l <"$REYES_TEST/calls")
test "$number" -gt 1 && test "$number" -le {failures + 1} && exit 1
exec {{real}} "$@"
""",
    )
    spoil(host, "ip6tables-restore", "exit 1")
    done = host.run()
    assert done.returncode == 25, done.stdout
    assert ("could not undo" not in done.stdout) is undone
    assert host.in_force() == (0, 0)


@pytest.mark.parametrize("pages", range(9))
def test_a_disk_that_fills_up_leaves_the_old_policy_or_the_new(
    host: FollowerHost, pages: int
) -> None:
    host.state.mkdir()
    host.mount("-t", "tmpfs", "-o", "size=1m,mode=0755", "state", str(host.state))
    host.apply(0)
    disk = host.wire.host.call(os.statvfs, host.state)
    size = (disk.f_blocks - disk.f_bfree + pages) * disk.f_frsize
    host.mount("-o", f"remount,size={size}", str(host.state))
    host.publish(1)
    done = host.run()
    assert done.returncode in (0, 78), done.stdout
    now = host.in_force()
    assert now == ((1, 1) if done.returncode == 0 else (0, 0)), done.stdout
    host.mount("-o", "remount,size=1m", str(host.state))
    assert host.run().returncode == 0
    assert host.in_force() == (1, 1)


def test_a_full_disk_stops_a_commit_and_does_not_stop_a_repair(host: FollowerHost) -> None:
    host.state.mkdir()
    host.mount("-t", "tmpfs", "-o", "size=1m,mode=0755", "state", str(host.state))
    host.apply(0)
    assert host.run().returncode == 0
    host.wire.host.run(["dd", "if=/dev/zero", f"of={host.state / 'much'}", "bs=4k"])
    host.iptables("-F", "reyes-ingress")
    done = host.run()
    assert host.in_force() == (0, 0), done.stdout
    host.publish(1)
    done = host.run()
    assert done.returncode == 78
    assert "No space left on device" in done.stdout
    assert host.in_force() == (0, 0)
    host.iptables("-F")
    assert host.run().returncode == 78
    assert host.in_force() == (0, 0)


def test_a_state_directory_that_may_only_be_read_stops_a_run(host: FollowerHost) -> None:
    host.state.mkdir()
    host.mount("-t", "tmpfs", "-o", "size=1m,mode=0755", "state", str(host.state))
    host.apply(0)
    host.mount("-o", "remount,ro", str(host.state))
    host.publish(1)
    before = host.kernel()
    done = host.run()
    assert done.returncode == 78
    assert "Read-only file system" in done.stdout
    assert host.kernel() == before
    host.iptables("-F")
    assert host.run().returncode == 78
    assert host.in_force() == (0, 0)
    host.mount("-o", "remount,rw", str(host.state))
    assert host.run().returncode == 0
    assert host.in_force() == (1, 1)


@pytest.mark.parametrize("name", ["state.json", "previous.json", "trial.json"])
def test_a_corrupt_file_stops_one_run_and_is_set_aside(host: FollowerHost, name: str) -> None:
    content = b'{"accepted'
    host.apply(0)
    host.apply(1)
    (host.state / name).write_bytes(content)
    before = host.kernel()
    host.publish(2)
    done = host.run()
    assert done.returncode == 78, done.stdout
    assert f"{name} is corrupt" in done.stdout
    assert host.kernel() == before
    assert (host.state / name).with_suffix(".corrupt").read_bytes() == content
    assert host.run().returncode == 0
    assert host.in_force() == (2, 2)


def test_a_corrupt_last_good_ruleset_is_replaced(host: FollowerHost) -> None:
    host.apply(0)
    (host.state / "last-good.gpg").write_bytes(b"\x80")
    assert host.run().returncode == 0
    assert host.in_force() == (0, 0)
    assert (host.state / "last-good.gpg").read_bytes() == (
        host.directory / "ruleset.gpg"
    ).read_bytes()


def test_a_clock_that_was_ahead_and_went_back_leaves_the_newer_policy(host: FollowerHost) -> None:
    host.publish(0, ahead=100)
    assert host.run().returncode == 0
    host.publish(1)
    assert host.run().returncode == 22
    assert host.in_force() == (0, 0)


def test_a_clock_that_jumped_ahead_leaves_the_policy_that_has_expired(host: FollowerHost) -> None:
    """Seen from a clock that jumped two hours ahead, all rulesets are two hours old."""
    host.apply(0)
    newer = host.remembered()["accepted"]["serial"] + 1
    host.publish(1, ahead=-7200, serial=newer)
    assert host.run().returncode == 20
    host.publish(1, ahead=7200)
    assert host.run().returncode == 22
    assert host.in_force() == (0, 0)
    host.publish(1)
    assert host.run().returncode == 0
    assert host.in_force() == (1, 1)


def test_of_two_followers_at_once_one_gives_way(host: FollowerHost) -> None:
    host.apply(0)
    host.publish(1)
    for _ in range(3):
        both = [host.launch() for _ in range(2)]
        codes = sorted(one.wait(30) for one in both)
        for one in both:
            one.communicate(30)
        assert codes in ([0, 75], [0, 0])  # the first may be done before the second begins
        assert host.in_force() == (1, 1)


def test_a_follower_gives_way_to_a_dead_mans_switch(host: FollowerHost) -> None:
    host.apply(0)
    host.publish(1)
    spoil(host, "ip6tables-restore", 'kill -KILL "$(cat "$REYES_TEST/pid")"; sleep 1; {real} "$@"')
    with host.launch() as killed:
        assert killed.wait(30) == -9
        host.wrap("ip6tables-restore")
        done = host.run()
        assert done.returncode == 75, done.stdout
        host.settle()
    assert host.in_force() == (0, 0)
    assert host.run().returncode == 0
    assert host.in_force() == (1, 1)


class Meddler:
    """Another program that does the same again and again while commits run."""

    def __init__(self, host: FollowerHost, script: str) -> None:
        self._running = host.wire.host.call(
            subprocess.Popen,
            ["sh", "-c", f"while :; do {script}; done"],
            env=host.environment(),
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._running.kill()
        self._running.wait()


MEDDLING = {
    "flushes": "{v4} -F INPUT; {v6} -F INPUT; sleep 0.05",
    "flushes restlessly": "{v4} -F INPUT; {v6} -F INPUT",
    "inserts": (
        "{v4} -I INPUT -s 192.0.2.9 -j DROP; {v6} -I INPUT -s 2001:db8::99 -j DROP; "
        "{v4} -D INPUT -s 192.0.2.9 -j DROP; {v6} -D INPUT -s 2001:db8::99 -j DROP"
    ),
    "takes our jump away": "{v4} -D INPUT -j reyes-input; {v6} -D INPUT -j reyes-input",
}


@pytest.mark.parametrize("backend", ["nft", "legacy"])
@pytest.mark.parametrize("script", MEDDLING.values(), ids=MEDDLING)
def test_another_program_meddles_with_input_while_commits_run(
    keys: Keys, backend: str, script: str
) -> None:
    with FollowerHost(keys, backend) as host:  # type: ignore[arg-type]  # one of the two
        host.apply(0)
        words = {"v4": f"iptables-{backend} -w", "v6": f"ip6tables-{backend} -w"}
        with Meddler(host, script.format(**words)):
            for generation in range(1, 5):
                host.publish(generation)
                done = host.run()
                assert done.returncode in (0, 25), done.stdout
        host.settle()
        done = host.run()
        assert done.returncode == 0, done.stdout
        assert host.in_force() == (host.generation % COLOURS,) * 2
