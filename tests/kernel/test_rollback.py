"""Back to the generation before, and staying there, on a real kernel."""

import json
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest

from reyes.adapters.state import StateDirectory
from tests.kernel.followers import PATIENCE, FollowerHost, wait_for
from tests.kernel.generations import NETWORK, UNFILTERED
from tests.kernel.killing import honest_run, kill, make_killers

pytestmark = pytest.mark.kernel


@pytest.fixture
def third(host: FollowerHost) -> FollowerHost:
    """A host that has seen three generations."""
    for generation in range(3):
        host.apply(generation)
    return host


def roll_back(host: FollowerHost, *arguments: str) -> str:
    done = host.run(*arguments, command="rollback")
    assert done.returncode == 0, done.stdout
    return done.stdout


def held(host: FollowerHost) -> bool:
    done = host.run()
    assert done.returncode == 0, done.stdout
    return "held against serial=" in done.stdout


def test_a_rollback_leads_back_and_holds_however_often_it_is_said(third: FollowerHost) -> None:
    for _ in range(3):
        assert roll_back(third).startswith("rolled back; ")
        assert third.in_force() == (1, 1)
        assert held(third)
        assert third.in_force() == (1, 1)
    assert third.run("--force").returncode == 0
    assert third.in_force() == (2, 2)
    roll_back(third)
    assert third.in_force() == (1, 1)


def test_rules_that_somebody_spoilt_are_nothing_to_go_back_to_with_a_second_rollback(
    third: FollowerHost,
) -> None:
    third.iptables("-F", "reyes-ingress")
    for _ in range(2):
        assert roll_back(third).startswith("rolled back; ")
        assert third.in_force() == (1, 1)


def test_a_pass_that_is_held_counts_nothing_that_is_not_in_force(third: FollowerHost) -> None:
    roll_back(third)
    said = third.run().stdout
    assert re.search(r"^WARNING held against serial=\d+ seconds=[\d.]+$", said, re.MULTILINE)
    assert "rules=" not in said


def test_a_hold_ends_with_another_content_of_a_higher_serial(third: FollowerHost) -> None:
    roll_back(third)
    third.publish(2)
    assert held(third)
    third.publish(0)
    assert not held(third)
    assert third.in_force() == (0, 0)
    third.publish(2)
    assert not held(third)


def test_a_hold_ends_at_its_time(third: FollowerHost) -> None:
    assert "or " in roll_back(third, "--until", "1h")
    assert held(third)
    state = third.remembered()
    state["hold"]["until"] -= 3600
    (third.state / "state.json").write_text(json.dumps(state))
    assert not held(third)
    assert third.in_force() == (2, 2)


def test_a_hold_may_end_at_a_moment(third: FollowerHost) -> None:
    moment = datetime.now(UTC) + timedelta(days=1)
    for text in (
        f"{moment:%Y-%m-%dT%H:%MZ}",
        f"{moment:%Y-%m-%dT%H:%M}",
        f"{moment + timedelta(hours=2):%Y-%m-%dT%H:%M}+02:00",
    ):
        roll_back(third, "--until", text)
        until = third.remembered()["hold"]["until"]
        assert until == int(moment.replace(second=0, microsecond=0).timestamp())
    assert held(third)


@pytest.mark.parametrize(
    "text", ["yesterday", "0s", "2020-01-01", "-5m", "5", "9999999d", "", "99999-01-01T00:00"]
)
def test_an_end_that_is_none_is_refused_before_anything_is_done(
    host: FollowerHost, text: str
) -> None:
    host.apply(0)
    host.apply(1)
    done = host.run(f"--until={text}", command="rollback")
    assert done.returncode == 2, done.stdout
    assert "--until" in done.stdout
    assert host.in_force() == (1, 1)
    assert "hold" not in host.remembered()


def test_a_dry_run_says_why_a_pass_would_not_commit_this(third: FollowerHost) -> None:
    note = "note: a pass would not commit this now: "
    assert note not in third.run("--dry-run").stdout
    roll_back(third)
    assert f"{note}a rollback holds until" in third.run("--dry-run").stdout
    assert note not in third.run("--dry-run", "--force").stdout
    (third.directory / "disabled").touch()
    assert f"{note}{third.directory}/disabled exists" in third.run("--dry-run").stdout


def test_what_is_held_is_looked_after(third: FollowerHost) -> None:
    roll_back(third)
    members = [name for name in third.sets() if ":members:" in name]
    assert len(members) == 4
    assert held(third)  # reads all members
    assert repaired(third) == 0
    for number, spoil in enumerate(
        (
            lambda: third.iptables("-F", "reyes-ingress"),
            lambda: third.iptables("-F", "INPUT", version=6),
            lambda: third.iptables("-I", "INPUT", "-j", "ACCEPT"),
            lambda: third.ipset("flush"),
            third.reboot,
        )
    ):
        spoil()
        assert "WARNING repaired what is held" in third.run().stdout
        assert third.in_force() == (1, 1)
        assert "repaired" not in third.run().stdout
        assert repaired(third) == number + 1


def repaired(host: FollowerHost) -> int:
    status = json.loads((host.state / "status.json").read_bytes())
    return int(status["counters"]["repaired"])


def test_a_configuration_that_waits_for_the_end_of_a_hold_is_told(third: FollowerHost) -> None:
    roll_back(third)
    waits = "is not that of the last good pass: what that changes in the rules waits"
    assert waits not in third.run().stdout
    third.configure(failsafe=[])
    third.publish(2)  # the same content once more
    done = third.run()
    assert "held against" in done.stdout
    assert waits in done.stdout
    assert waits not in third.run("--force").stdout
    assert waits not in third.run().stdout


def test_what_is_held_comes_back_at_boot(third: FollowerHost) -> None:
    roll_back(third)
    third.reboot()
    assert third.sets() == set()
    done = third.run("--boot", file=False)
    assert done.returncode == 0, done.stdout
    assert third.in_force() == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "command", "left"),
    [((), "rollback", 1), (("--remove",), "follower", UNFILTERED)],
)
def test_a_way_out_waits_for_a_pass_that_is_at_work(
    third: FollowerHost, arguments: tuple[str, ...], command: str, left: int
) -> None:
    with StateDirectory(third.state).lock():
        running = third.launch(*arguments, command=command)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(2)
    with running:
        said = running.communicate(PATIENCE)
    assert running.returncode == 0, said
    assert "trying for 75 s" in said
    assert third.in_force() == (left, left)


def test_a_trial_that_cannot_be_read_is_nothing_to_a_rollback_that_waits(
    third: FollowerHost,
) -> None:
    trial = third.state / "trial.json"
    with StateDirectory(third.state).lock():
        trial.write_text("{")
        running = third.launch(command="rollback")
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(2)
        trial.unlink()
    with running:
        said = running.communicate(PATIENCE)
    assert running.returncode == 0, said
    assert third.in_force() == (1, 1)


def test_without_a_generation_there_is_no_way_back(host: FollowerHost) -> None:
    host.publish(0)
    done = host.run(command="rollback")
    assert done.returncode == 78
    assert "no earlier rules are remembered on this host" in done.stdout


def test_a_rollback_to_before_the_first_rules_says_what_that_means(host: FollowerHost) -> None:
    host.apply(0)
    done = host.run(command="rollback")
    assert done.returncode == 78
    assert "a rollback would leave this host with none" in done.stdout
    assert host.in_force() == (0, 0)
    assert "nothing is judged now" in roll_back(host, "--force")
    assert host.in_force() == (UNFILTERED, UNFILTERED)
    done = host.run(command="check")
    assert done.returncode == 2
    assert "the rollback brought back a time without rules of Reyes" in done.stdout


def test_a_rollback_to_audit_mode_says_what_that_means(host: FollowerHost) -> None:
    host.configure(enforce=False)
    host.publish(0)
    assert host.run().returncode == 0
    host.configure(enforce=True)
    host.apply(0)
    assert "what would be denied is let through" not in host.run(command="check").stdout
    assert "what would be denied is let through" in roll_back(host)
    assert host.in_force() == (UNFILTERED, UNFILTERED)
    for _ in range(2):
        done = host.run(command="check")
        assert done.returncode == 1, done.stdout
        assert "audit mode: what would be denied is let through" in done.stdout
        assert held(host)


def test_a_table_that_was_flushed_during_a_hold_is_no_generation(third: FollowerHost) -> None:
    roll_back(third)
    third.iptables("-F")
    third.iptables("-X")
    assert third.run("--force").returncode == 0
    assert third.in_force() == (2, 2)
    roll_back(third)
    assert UNFILTERED not in third.in_force()


def test_more_logging_for_a_while_does_not_cost_the_way_back(third: FollowerHost) -> None:
    for flags in (("--log-drop", "--log-accept"), ()):
        assert "INFO applied serial=" in third.run(*flags).stdout
    roll_back(third)
    assert third.in_force() == (1, 1)


def test_a_member_that_somebody_added_does_not_come_back_with_a_rollback(
    third: FollowerHost,
) -> None:
    (staff,) = (name for name in third.sets() if name.startswith("r4:staff:"))
    third.ipset("del", staff, f"{NETWORK[4]}99")
    third.ipset("add", staff, f"{NETWORK[4]}66")
    roll_back(third)
    assert "drift" in third.run(command="check").stdout
    assert held(third)
    assert f"add {staff} {NETWORK[4]}99\n" in third.ipset("save")
    assert f"{NETWORK[4]}66" not in third.ipset("save")
    assert "drift" not in third.run(command="check").stdout


@pytest.mark.parametrize("destroyed", ["by its owner", "by a restart"])
def test_rules_of_others_that_cannot_come_back_keep_no_rules_of_ours_away(
    host: FollowerHost, destroyed: str
) -> None:
    """They name a set that is not there; each pass tries again, until it is."""
    refused = "other programs' rules of that time do not come back"
    theirs = "-A INPUT -m set --match-set f2b-sshd src -j DROP"
    host.ipset("create", "f2b-sshd", "hash:ip")
    host.iptables(*theirs.split())
    host.apply(0)
    host.configure(filter_table="exclusive")
    host.apply(1)
    if destroyed == "by its owner":
        host.ipset("destroy", "f2b-sshd")
    assert (refused in roll_back(host)) == (destroyed == "by its owner")
    assert host.in_force() == (0, 0)
    host.reboot()
    for arguments in (("--boot",), ()):
        done = host.run(*arguments, file=not arguments)
        assert done.returncode == 0, done.stdout
        assert refused in done.stdout
        assert host.in_force() == (0, 0)
    assert theirs not in host.saved()
    host.ipset("create", "f2b-sshd", "hash:ip")
    assert refused not in host.run().stdout
    assert theirs in host.saved()
    assert host.in_force() == (0, 0)


def test_a_set_of_held_rules_that_is_gone_and_forgotten_is_critical(third: FollowerHost) -> None:
    for name in third.sets() - named(third):
        third.ipset("flush", name)
    roll_back(third)
    held_generation = json.loads((third.state / "held.json").read_bytes())
    held_generation["members"] = {}
    (third.state / "held.json").write_text(json.dumps(held_generation))
    third.reboot()
    done = third.run(command="check")
    assert done.returncode == 2
    assert "of that generation is gone" in done.stdout
    assert held(third)


def test_the_end_of_a_hold_is_no_drift_until_the_next_pass(third: FollowerHost) -> None:
    roll_back(third, "--until", "1s")
    wait_for(lambda: time.time() > third.remembered()["hold"]["until"], "the time is over")
    assert third.run(command="check").returncode == 0
    assert not held(third)


def test_a_hold_outlasts_its_time_where_no_ruleset_is_to_be_had(third: FollowerHost) -> None:
    roll_back(third, "--until", "1s")
    wait_for(lambda: time.time() > third.remembered()["hold"]["until"], "the time is over")
    blob = (third.directory / "ruleset.gpg").read_bytes()
    (third.directory / "ruleset.gpg").unlink()
    third.iptables("-F")
    third.configure(denied="reject")
    assert third.run().returncode == 78
    assert third.in_force() == (1, 1)
    (third.directory / "ruleset.gpg").write_bytes(blob)
    assert third.run().returncode == 0
    assert not held(third)


def test_a_commit_that_failed_is_no_generation(host: FollowerHost) -> None:
    host.publish(0)
    host.wrap("ip6tables-restore", 'case "$*" in *--version*) exec {real} "$@";; esac; exit 1')
    assert host.run().returncode == 25
    assert host.run(command="rollback").returncode == 78


def test_a_set_that_somebody_destroyed_comes_back_with_a_rollback(third: FollowerHost) -> None:
    for name in third.sets() - named(third):
        third.ipset("destroy", name)
    roll_back(third)
    assert third.in_force() == (1, 1)


def test_after_a_restart_there_is_a_way_back_once_the_rules_are_in_force(
    third: FollowerHost,
) -> None:
    third.reboot()
    done = third.run(command="rollback")
    assert done.returncode == 25
    assert "r4:staff:" in done.stdout
    assert "of that generation is gone" in done.stdout
    assert third.run("--boot", file=False).returncode == 0
    for _ in range(2):
        roll_back(third)
        assert third.in_force() == (1, 1)
        third.reboot()
        assert third.run("--boot", file=False).returncode == 0
        assert third.in_force() == (1, 1)


def named(host: FollowerHost) -> set[str]:
    """The sets that rules name."""
    rules = " ".join((*host.saved(4), *host.saved(6))).split()
    return {word for word in rules if word in host.sets()}


def test_a_rollback_that_dies_leaves_one_generation(host: FollowerHost) -> None:
    make_killers(host)
    for _ in range(3):
        honest_run(host)
    (host.directory / "count").write_text("0\n")
    roll_back(host)
    steps = int((host.directory / "count").read_text())
    for at in range(1, steps + 1):
        assert host.run("--force").returncode == 0
        assert host.in_force() == (2, 2)
        kill(host, at, command="rollback")
        host.settle()
        assert host.in_force() == (2, 2)
        roll_back(host)
        assert host.in_force() == (1, 1)


def test_the_state_says_what_is_held(third: FollowerHost) -> None:
    roll_back(third)
    state = third.remembered()
    assert state["hold"]["serial"] == state["accepted"]["serial"]
    kept = json.loads((third.state / "held.json").read_bytes())
    assert set(kept["members"]) == named(third)


def test_who_asks_about_a_packet_is_told_that_other_rules_are_in_force(
    third: FollowerHost,
) -> None:
    question = ("--from", "10.0.0.9", "--proto", "tcp", "--port", "9")
    note = "note: a rollback holds on this host"
    assert note not in third.run(*question, command="explain").stdout
    roll_back(third)
    assert note in third.run(*question, command="explain").stdout


def test_who_asks_about_a_packet_is_told_of_audit_mode_and_of_the_disable_file(
    host: FollowerHost,
) -> None:
    question = ("--from", "10.0.0.9", "--proto", "tcp", "--port", "9")
    audit = "note: audit mode: what would be denied is let through"
    disabled = f"note: disabled by {host.directory}/disabled: "

    def answer() -> str:
        return host.run(*question, command="explain").stdout

    nothing = "note: no rules of Reyes are in force on this host: it judges no packet"
    host.apply(0)
    assert nothing not in answer()
    host.configure(enforce=False)
    assert audit not in answer(), "the next pass puts that in force"
    assert host.run().returncode == 0
    assert audit in answer()
    assert disabled not in answer()

    host.configure(enforce=True)
    (host.directory / "disabled").touch()
    assert audit in answer()
    assert f"{disabled}the rules stay as they are" in answer()
    assert host.run("--remove").returncode == 0
    assert host.run().returncode == 0
    assert audit not in answer()
    assert nothing in answer()
    assert f"{disabled}no rules are known in force" in answer()
