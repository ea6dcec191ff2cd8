"""Commits that must prove healthy: rehearsal, probes, dead man's switch, people."""

import json
import os
import pty
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from reyes.net import Everything
from tests.kernel.followers import FollowerHost, Keys
from tests.kernel.generations import NETWORK, policy

pytestmark = pytest.mark.kernel

STAFF = f"{NETWORK[4]}99"
QUESTION = "Can you still open new connections?"
NOTHING = "exit 1\n"


def rehearsing(host: FollowerHost, script: str) -> str:
    """A script that does something else in the rehearsal than on the live kernel."""
    network = host.wire.run(["readlink", "/proc/self/ns/net"]).stdout.strip()
    return f"""
if test "$(readlink /proc/self/ns/net)" != "{network}"; then {script}
fi
echo "$0 $*" >>"$REYES_TEST/live"
exec {{real}} "$@"
"""


@pytest.mark.parametrize("command", ["ipset", "iptables-restore", "ip6tables-restore"])
def test_what_the_rehearsal_refuses_is_never_tried_live(host: FollowerHost, command: str) -> None:
    host.apply(0)
    before = host.kernel()
    for name in ("ipset", "iptables-restore", "ip6tables-restore"):
        refuses = 'echo "line 3 failed" >&2; exit 1' if name == command else 'exec {real} "$@"'
        host.wrap(name, rehearsing(host, refuses))
    host.publish(1)
    done = host.run()
    assert done.returncode == 25, done.stdout
    assert f"in the rehearsal {command} refused: line 3 failed" in done.stdout
    assert host.kernel() == before
    called = (host.directory / "live").read_text().splitlines()
    assert [line for line in called if " -w " in line or line.endswith("ipset restore")] == []
    for name in ("ipset", "iptables-restore", "ip6tables-restore"):
        host.wrap(name)
    assert host.run().returncode == 0


def test_where_namespaces_are_forbidden_the_configuration_must_say_so(host: FollowerHost) -> None:
    host.wrap("unshare", NOTHING)
    host.publish(0)
    before = host.kernel()
    done = host.run()
    assert done.returncode == 78
    assert "set follower.rehearsal: false where they are forbidden" in done.stdout
    assert host.kernel() == before
    host.configure(rehearsal=False)
    assert host.run().returncode == 0
    assert host.in_force() == (0, 0)


@pytest.mark.parametrize("older", [True, False])
def test_a_boot_does_not_wait_for_a_pass_where_nothing_could_be_held(
    host: FollowerHost, *, older: bool
) -> None:
    if older:
        host.apply(0)
    host.wrap("unshare", NOTHING)
    host.publish(1)
    assert host.run().returncode == 78
    host.wrap("unshare")
    host.reboot()
    assert host.run("--boot", file=False).returncode == 0
    assert host.in_force() == ((0, 0) if older else (1, 1))
    assert host.run("--boot", "--force", file=False).returncode == 0
    assert host.in_force() == (1, 1)


def test_a_configuration_that_forbids_the_rehearsal_does_not_cost_the_way_back(
    host: FollowerHost,
) -> None:
    host.apply(0)
    host.apply(1)
    host.wrap("unshare", NOTHING)
    host.publish(2)
    assert host.run().returncode == 78
    assert host.run(command="rollback").returncode == 0
    assert host.in_force() == (0, 0)


def depend_on_staff(host: FollowerHost) -> None:
    """Cut the staff's answers off unless the rules let them in: none of it is tracked."""
    host.answer(STAFF)
    host.iptables("-t", "raw", "-A", "PREROUTING", "-s", STAFF, "-j", "CT", "--notrack")
    host.iptables("-t", "raw", "-A", "OUTPUT", "-d", STAFF, "-j", "CT", "--notrack")


@pytest.fixture
def watched(keys: Keys) -> Iterator[tuple[FollowerHost, int]]:
    """A host that needs a service of its staff, and that service's port."""
    with FollowerHost(keys, confirm_timeout=1) as host:
        depend_on_staff(host)
        with host.wire.neighbour.call(socket.create_server, (STAFF, 0)) as server:
            port = server.getsockname()[1]
            host.configure(probes=[f"{STAFF}:{port}"])
            host.apply(0, policy(0, Everything()))
            yield host, port


def test_rules_that_cut_a_probe_off_are_taken_back_and_not_tried_again(
    watched: tuple[FollowerHost, int],
) -> None:
    host, port = watched
    host.publish(1)
    done = host.run()
    assert done.returncode == 25, done.stdout
    assert f"the probe {STAFF}:{port} does not answer any more" in done.stdout
    assert host.in_force() == (0, 0)
    done = host.run()
    assert done.returncode == 25
    assert "not tried again" in done.stdout
    assert host.in_force() == (0, 0)
    done = host.run("--force")
    assert "the rules before are back" in done.stdout
    assert host.in_force() == (0, 0)
    host.apply(2, policy(2, Everything()))
    assert "unhealthy" not in host.remembered()


def counted(host: FollowerHost) -> dict[str, int]:
    found: dict[str, int] = json.loads((host.state / "status.json").read_bytes())["counters"]
    return found


def test_what_was_in_force_before_unhealthy_rules_is_looked_after(
    watched: tuple[FollowerHost, int],
) -> None:
    host, _ = watched
    host.publish(1)
    assert host.run().returncode == 25
    assert counted(host)["repaired"] == 0
    host.iptables("-F", "reyes-ingress")
    done = host.run()
    assert done.returncode == 25
    assert "repaired what is held" in done.stdout
    assert counted(host)["repaired"] == 1
    assert host.in_force() == (0, 0)
    ruleset = host.directory / "ruleset.gpg"
    blob = ruleset.read_bytes()
    ruleset.unlink()
    host.iptables("-F", "reyes-ingress")
    done = host.run()
    assert done.returncode == 78
    assert "could not be looked after" not in done.stdout
    assert counted(host)["repaired"] == 2
    ruleset.write_bytes(blob)
    for how in ({"file": False}, {}):
        host.reboot()
        assert host.run(*(("--boot",) if how else ()), **how).returncode == 25
        assert host.in_force() == (0, 0)
        assert json.loads((host.state / "status.json").read_bytes())["applied"]


@pytest.mark.parametrize("change", [{}, {"denied": "reject"}])
def test_a_boot_tries_no_others_while_rules_are_to_blame(
    watched: tuple[FollowerHost, int], change: dict[str, str]
) -> None:
    host, _ = watched
    host.publish(1)
    assert host.run().returncode == 25
    host.configure(**change)
    host.reboot()
    done = host.run("--boot", file=False)
    assert done.returncode == (0 if change else 25), done.stdout
    assert ("WARNING held against" in done.stdout) is bool(change)
    assert json.loads((host.state / "status.json").read_bytes())["applied"]
    assert host.in_force() == (0, 0)
    done = host.run()
    assert ("does not answer any more" in done.stdout) is bool(change)  # they are tried now
    assert host.in_force() == (0, 0)


def test_a_boot_does_not_wait_where_there_was_nothing_before_blamed_rules(
    keys: Keys,
) -> None:
    with FollowerHost(keys, confirm_timeout=1) as host:
        depend_on_staff(host)
        with host.wire.neighbour.call(socket.create_server, (STAFF, 0)) as server:
            host.configure(probes=[f"{STAFF}:{server.getsockname()[1]}"])
            host.publish(1)
            assert host.run().returncode == 25
        host.configure(probes=[], denied="reject")
        assert host.run("--boot", file=False).returncode == 0
        assert host.in_force() == (1, 1)


def test_a_configuration_that_cuts_a_probe_off_is_told_beside_the_outage(
    watched: tuple[FollowerHost, int],
) -> None:
    host, port = watched
    host.configure(failsafe=[{"cidr": STAFF}])
    host.publish(1)
    assert host.run().returncode == 0
    before = host.saved()
    host.configure(failsafe=[])
    (host.directory / "ruleset.gpg").unlink()
    for said in (f"the probe {STAFF}:{port} does not answer any more", "are not tried again"):
        assert host.run().returncode == 78
        assert host.saved() == before
        status = json.loads((host.state / "status.json").read_bytes())
        assert said in status["run"]["message"]
        assert status["counters"]["rolled_back"] == 1


def test_a_probe_that_failed_before_does_not_count(host: FollowerHost) -> None:
    host.answer(STAFF)
    host.configure(probes=[f"{STAFF}:9"])
    host.apply(0)


@contextmanager
def store(host: FollowerHost) -> Iterator[dict[str, str]]:
    """The newest ruleset on a store of the staff's; yields what leads the command there."""

    class Object(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                blob = (host.directory / "ruleset.gpg").read_bytes()
            except FileNotFoundError:
                self.send_error(404)
                return
            tag = f'"{hash(blob)}"'
            known = self.headers["If-None-Match"] == tag
            self.send_response(304 if known else 200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", "0" if known else str(len(blob)))
            self.end_headers()
            self.wfile.write(b"" if known else blob)

        def log_message(self, *_: object) -> None:
            pass

    server = host.wire.neighbour.call(HTTPServer, (STAFF, 0), Object)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://{STAFF}:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
        }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_rules_that_cut_the_store_off_are_taken_back(keys: Keys) -> None:
    with FollowerHost(keys, confirm_timeout=1) as host:
        depend_on_staff(host)
        with store(host) as way:
            host.publish(0, policy(0, Everything()))
            done = host.run(file=False, environment=way)
            assert done.returncode == 0, done.stdout
            host.publish(1)
            done = host.run(file=False, environment=way)
            assert done.returncode == 25, done.stdout
            assert "the ruleset's source is not reached any more" in done.stdout
            assert host.in_force() == (0, 0)
            host.publish(2, policy(2, Everything()))
            assert host.run(file=False, environment=way).returncode == 0
            assert host.in_force() == (2, 2)


@pytest.mark.parametrize(("answer", "code"), [(b"\x90garbage", 21), (None, 75)])
def test_a_configuration_that_cuts_the_store_off_is_taken_back_whatever_it_answered(
    keys: Keys, answer: bytes | None, code: int
) -> None:
    with FollowerHost(keys, confirm_timeout=1, failsafe=[{"cidr": STAFF}]) as host:
        depend_on_staff(host)
        with store(host) as way:
            host.publish(1)
            assert host.run(file=False, environment=way).returncode == 0
            before = host.saved()
            host.configure(failsafe=[])
            (host.directory / "ruleset.gpg").unlink()
            if answer is not None:
                (host.directory / "ruleset.gpg").write_bytes(answer)
            done = host.run(file=False, environment=way)
            assert done.returncode == code, done.stdout
            assert "the ruleset's source is not reached any more" in done.stdout
            assert host.saved() == before


def test_a_follower_that_hangs_in_its_commit_is_ended_and_its_rules_are_taken_back(
    keys: Keys,
) -> None:
    with FollowerHost(keys, confirm_timeout=1) as host:
        host.apply(0)
        host.wrap("iptables-restore", '{real} "$@"; code=$?; ' + live_only("kill -STOP"))
        host.publish(1)
        done = host.run_alone(impatient=True)
        assert done.returncode == -signal.SIGKILL, done.stdout
        assert "hung" in done.stdout
        assert host.in_force() == (0, 0)
        host.wrap("iptables-restore")
        assert host.run().returncode == 0
        assert host.in_force() == (1, 1)


def live_only(verb: str) -> str:
    """Do something to the follower after its first restore on the live kernel."""
    return f"""
case " $* " in *--version*) exit "$code" ;; esac
read -r pid <"$REYES_TEST/pid"
if test "$PPID" = "$pid" && ! test -e "$REYES_TEST/once"; then
    touch "$REYES_TEST/once"
    {verb} "$pid"
fi
exit "$code"
"""


@contextmanager
def asked(
    host: FollowerHost, *arguments: str, publish: bool = True
) -> Iterator["subprocess.Popen[str]"]:
    """A follower that has committed and waits for an answer."""
    if publish:
        host.publish(host.generation + 1)
    with host.start(*arguments, stdin=subprocess.PIPE) as running:
        assert running.stdout
        said = ""
        while QUESTION not in said:
            word = running.stdout.read(1)
            assert word, said
            said += word
        yield running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_while_the_rules_are_on_trial_ends_in_the_old_ones(
    host: FollowerHost, number: signal.Signals
) -> None:
    host.apply(0)
    with asked(host, "--confirm", "60") as running:
        assert host.in_force() == (1, 1)
        running.send_signal(number)
        assert running.wait(timeout=30) != 0
        host.settle()
        assert host.in_force() == (0, 0)
        done = host.run()
        assert done.returncode == 25
        assert "or were not agreed to: they are not tried again" in done.stdout
        assert host.in_force() == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_interrupts_the_question_is_told_what_became_of_the_rules(
    host: FollowerHost, number: signal.Signals
) -> None:
    host.apply(0)
    with asked(host, "--confirm", "60") as running:
        for _ in range(3):  # a shell that loses its terminal sends more than one
            running.send_signal(number)
            time.sleep(0.01)
        said, _ = running.communicate(timeout=30)
        assert running.returncode == 25
    assert "it was not confirmed: the rules before are back in force" in said
    assert host.in_force() == (0, 0)
    assert "exit code 25" in host.run(command="status", file=False).stdout


def test_a_repair_that_was_cut_off_at_the_question_is_due_again(host: FollowerHost) -> None:
    host.apply(0)
    host.iptables("-I", "reyes-ingress", "-j", "ACCEPT")
    with asked(host, "--confirm", "60", publish=False) as running:
        running.send_signal(signal.SIGHUP)
        running.communicate(timeout=30)
    host.settle()
    assert "repaired" in host.run().stdout
    assert host.in_force() == (0, 0)


def test_a_no_brings_nothing_back_that_somebody_opened(host: FollowerHost) -> None:
    host.apply(0)
    right = host.saved(4)
    host.iptables("-F", "reyes-drop")
    with asked(host, "--confirm", "60") as running:
        running.communicate("no\n", timeout=30)
        assert running.returncode == 25
    assert host.saved(4) == right
    assert host.run().returncode == 25
    assert host.saved(4) == right


def test_a_forced_and_agreed_pass_repairs_members(host: FollowerHost) -> None:
    host.apply(0)
    host.run()  # reads all members, and no pass after it does for an hour
    (staff,) = (name for name in host.sets() if name.startswith("r4:staff:"))
    host.ipset("del", staff, f"{NETWORK[4]}99")
    host.ipset("add", staff, f"{NETWORK[4]}66")
    with host.start("--interactive", "--force", stdin=subprocess.PIPE) as running:
        try:
            said, _ = running.communicate("y\n", timeout=30)
        finally:
            running.kill()
    assert "repaired" in said
    assert "changed meanwhile" not in said


def test_a_no_is_one_to_the_same_rules_with_less_logging(host: FollowerHost) -> None:
    host.apply(0)
    with asked(host, "--confirm", "60", "--log-accept", "--log-drop") as running:
        running.communicate("no\n", timeout=30)
    assert host.run().returncode == 25
    assert host.in_force() == (0, 0)
    assert "a pass would not commit this now: these rules" in host.run("--dry-run").stdout
    assert host.run("--force").returncode == 0
    assert host.in_force() == (1, 1)


ANSWERS = {
    "yes": ("yes\n", 0),
    "y": ("Y\n", 0),
    "no": ("no\n", 25),
    "an empty line": ("\n", 25),
    "the end": ("", 25),
}


@pytest.mark.parametrize(("answer", "code"), ANSWERS.values(), ids=ANSWERS)
def test_people_are_asked(host: FollowerHost, answer: str, code: int) -> None:
    host.apply(0)
    with asked(host, "--confirm", "60") as running:
        running.communicate(answer, timeout=30)
        assert running.returncode == code
        assert host.in_force() == ((1, 1) if code == 0 else (0, 0))


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 1)])
def test_people_are_shown_what_would_change_before_it_does(
    host: FollowerHost, answer: str, code: int
) -> None:
    host.apply(0)
    host.publish(1)
    with host.start("--interactive", stdin=subprocess.PIPE) as running:
        said, _ = running.communicate(answer, timeout=30)
        assert running.returncode == code, said
        assert "difference to the live kernel" in said
        assert "Commit this?" in said
        assert host.in_force() == ((1, 1) if code == 0 else (0, 0))


def test_who_thinks_keeps_nobody_out_and_agrees_to_nothing_else(host: FollowerHost) -> None:
    host.apply(0)
    host.publish(1)
    with host.start("--interactive", stdin=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stdin
        said = ""
        while "Commit this?" not in said:
            said += running.stdout.read(1)
        host.apply(2)
        host.publish(1)
        running.stdin.write("y\n")
        running.stdin.flush()
        while said.count("Commit this?") < 2:
            said += running.stdout.read(1)
        assert "has changed meanwhile" in said
        assert host.in_force() == (2, 2)
        running.communicate("y\n", timeout=30)
        assert running.returncode == 0
        assert host.in_force() == (1, 1)


def test_who_asks_whether_to_keep_rules_is_named_to_others_and_can_be_ended(
    host: FollowerHost,
) -> None:
    host.apply(0)
    with asked(host, "--confirm", "60") as running:
        named = f"another follower run (process {running.pid}) holds"
        done = host.run()
        assert done.returncode == 75
        assert named in done.stdout
        with host.launch(command="rollback") as waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(2)
            assert host.in_force() == (1, 1)
            running.terminate()
            running.communicate(timeout=30)
            said = waiting.communicate(30)
            assert waiting.returncode == 0, said
            assert named in said
            assert "or end that process" in said
    assert host.in_force() == (0, 0)


def test_a_family_goes_back_although_the_other_cannot(host: FollowerHost) -> None:
    host.apply(0)
    with asked(host, "--confirm", "60") as running:
        host.wrap("iptables-restore", "exit 1")
        running.communicate("no\n", timeout=30)
        assert running.returncode == 25
        assert host.in_force() == (1, 0)
        host.wrap("iptables-restore")
        host.publish(2)
        assert host.run().returncode == 0
        assert host.in_force() == (2, 2)


def test_silence_is_no_agreement(host: FollowerHost) -> None:
    host.apply(0)
    with asked(host, "--confirm", "1") as running:
        assert running.wait(timeout=30) == 25
        assert running.stdout
        assert "nobody confirmed it within 1 s" in running.stdout.read()
        assert host.in_force() == (0, 0)


def test_half_an_answer_does_not_keep_the_rules_on_trial(host: FollowerHost) -> None:
    host.apply(0)
    with asked(host, "--confirm", "1") as running:
        assert running.stdin
        running.stdin.write("ye")
        running.stdin.flush()
        assert running.wait(timeout=10) == 25
        assert host.in_force() == (0, 0)


def test_nobody_can_agree_where_standard_input_is_closed(host: FollowerHost) -> None:
    host.apply(0)
    host.publish(1)
    done = host.run_alone("--confirm", "5", before="exec <&-; ")
    assert done.returncode == 25, done.stdout
    assert host.in_force() == (0, 0)


# An interactive shell tells its jobs of it only after they have met the end of their input.
@pytest.mark.parametrize("shell", ["", """set -- bash --norc -ic '"$@"; :' bash "$@"; """])
def test_a_terminal_that_is_closed_ends_in_the_old_rules(host: FollowerHost, shell: str) -> None:
    host.apply(0)
    host.publish(1)
    ours, theirs = pty.openpty()
    # A session's leader that opens a terminal is from then on controlled by it.
    terminal = os.ttyname(theirs)
    before = f"exec <{terminal} >{terminal} 2>&1; {shell}"
    running = host.start("--confirm", "60", before=before, start_new_session=True)
    said = b""
    while QUESTION.encode() not in said:
        said += os.read(ours, 1024)
    os.close(theirs)
    assert host.in_force() == (1, 1)
    os.close(ours)
    assert running.wait(timeout=30) != 0
    host.settle()
    running.communicate()
    assert host.in_force() == (0, 0)
    assert "exit code 25" in host.run(command="status", file=False).stdout


def test_the_failsafe_stands_first_in_every_state(keys: Keys) -> None:
    for filter_table in ("shared", "exclusive"):
        with FollowerHost(keys, filter_table=filter_table) as host:
            host.apply(0)
            host.apply(1)
            host.run(command="rollback")
            for version in (4, 6):
                rules = host.saved(version)
                assert "-j reyes-input" in next(r for r in rules if r.startswith("-A INPUT"))
                loopback, failsafe, *_ = [r for r in rules if r.startswith("-A reyes-input")]
                assert "-i lo" in loopback
                assert "failsafe: tcp 22" in failsafe


def test_packets_see_the_old_policy_or_the_new_while_a_commit_runs(host: FollowerHost) -> None:
    host.apply(0)
    for new in range(1, 4):
        host.publish(new)
        with host.launch() as running:
            while running.poll() is None:
                host.see(new - 1, new % 3)
        assert running.returncode == 0
        assert host.in_force() == (new % 3,) * 2
