"""`reyes status`, `reyes check`, `reyes denied` and metrics of a follower on a real kernel."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from threading import Timer
from typing import Any

import pytest
from msgspec.structs import replace

from reyes.adapters.state import StateDirectory
from reyes.net import Family
from reyes.status import Status
from tests.kernel.followers import PATIENCE, FollowerHost, Keys, wait_for
from tests.kernel.generations import HERE, PACKETS, policy

pytestmark = pytest.mark.kernel

NOBODY = 65534
SLOW_GPG = """#!/bin/sh
case "$*" in *--verify*)
    if rm "$REYES_TEST/slow" 2>/dev/null; then
        while ! test -e "$REYES_TEST/go"; do sleep 0.01; done
    fi
esac
exec /usr/bin/gpg "$@"
"""


def ask(host: FollowerHost, command: str, *arguments: str, **how: Any) -> CompletedProcess[str]:
    return host.run(*arguments, command=command, file=False, **how)


def check(host: FollowerHost, *arguments: str) -> tuple[int, str]:
    done = ask(host, "check", *arguments)
    return done.returncode, done.stdout


def status(host: FollowerHost) -> Status:
    found = StateDirectory(host.state).status()
    assert found
    return found


def test_a_host_that_is_well(host: FollowerHost) -> None:
    host.apply(0)
    assert host.run().returncode == 0
    before = host.kernel(), (host.state / "state.json").read_bytes()
    code, said = check(host)
    assert code == 0
    assert said.startswith("OK: unchanged ")
    assert said.count("\n") == 1
    assert (host.kernel(), (host.state / "state.json").read_bytes()) == before
    report = json.loads(check(host, "--json")[1])
    assert (report["verdict"], report["problems"]) == ("ok", [])
    assert report["status"]["applied"]["enforced"] is True


def test_status_for_people_and_machines(host: FollowerHost) -> None:
    assert ask(host, "status").returncode == 78
    host.apply(0)
    said = ask(host, "status").stdout
    assert "last run      " in said
    assert "instance      i-0000000a in us-west-2" in said
    assert "set           r4:members:" in said
    report = json.loads(ask(host, "status", "--json").stdout)
    assert report["ruleset"]["serial"] == status(host).ruleset.serial  # type: ignore[union-attr]  # it was accepted
    assert all(entry["entries"] == entry["maximum"] == 1 for entry in report["applied"]["sets"])


AS_NOBODY = f"""
import os
import reyes.cli.check, reyes.cli.status
from reyes.cli import main
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
main()
"""
"""Imports first: an ordinary user may not be able to read where this Reyes lies."""


def ask_as_nobody(host: FollowerHost, command: str) -> CompletedProcess[str]:
    config = str(host.directory / "config.yaml")
    return host.wire.host.run([sys.executable, "-c", AS_NOBODY, command, "--config", config])


def test_anybody_may_ask_for_the_status_and_only_root_for_the_kernel(host: FollowerHost) -> None:
    host.apply(0)
    host.directory.chmod(0o755)
    done = ask_as_nobody(host, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "applied       " in done.stdout
    done = ask_as_nobody(host, "check")
    assert done.returncode == 3
    assert done.stdout.startswith("UNKNOWN: ")
    assert done.stdout.count("\n") == 1


def test_no_follower_is_critical_and_no_configuration_unknown(host: FollowerHost) -> None:
    code, said = check(host)
    assert (code, said) == (
        2,
        (
            "CRITICAL: no pass is on record: does a follower run?; no ruleset is kept;"
            " no ruleset is in force\n"
        ),
    )
    (host.directory / "config.yaml").write_text("environment: [")
    code, said = check(host)
    assert code == 3
    assert said.startswith("UNKNOWN: ")


def test_drift_is_seen_and_left_alone_and_repaired_by_the_next_pass(host: FollowerHost) -> None:
    host.apply(0)
    name = next(name for name in sorted(host.sets()) if name.startswith("r4:members"))
    host.ipset("del", name, "10.2.0.10")
    before = host.kernel()
    code, said = check(host)
    assert code == 2
    assert "drift: the kernel lacks (+) or has too much (-): + r4:members: 10.2.0.10" in said
    assert host.kernel() == before
    assert host.run().returncode == 0
    assert check(host)[0] == 0
    assert status(host).counters.repaired == 1


def test_what_differs_while_a_run_is_at_work_is_no_more_than_a_warning(host: FollowerHost) -> None:
    host.apply(0)
    host.iptables("-A", "reyes-drop", "-j", "ACCEPT")
    with StateDirectory(host.state).lock():
        code, said = check(host)
    assert code == 1
    assert f"a run is at work (process {os.getpid()}), perhaps with rules on trial: drift" in said
    assert check(host)[0] == 2


def test_a_ruleset_that_is_accepted_meanwhile_is_no_alarm(host: FollowerHost) -> None:
    """It is kept before the state says that it was accepted."""
    host.apply(0)
    host.publish(1)
    gpg = host.directory / "bin" / "gpg"
    gpg.write_text(SLOW_GPG)
    gpg.chmod(0o755)
    (host.directory / "slow").touch()
    with host.launch(command="check") as checking:
        wait_for(lambda: not (host.directory / "slow").exists(), "gpg looks at the ruleset")
        assert host.run().returncode == 0
        (host.directory / "go").touch()
        said = checking.communicate(PATIENCE)
        assert checking.returncode == 0, said


def test_a_kernel_that_cannot_be_looked_at_is_unknown(host: FollowerHost) -> None:
    host.apply(0)
    host.wrap("iptables-save", "\n")
    (host.directory / "bin" / "iptables-save").write_text("#!/nonexistent\n")
    code, said = check(host)
    assert code == 3, said
    assert "cannot start" in said


def test_members_that_were_swapped_for_others_are_drift(host: FollowerHost) -> None:
    host.apply(0)
    name = next(name for name in sorted(host.sets()) if name.startswith("r4:members"))
    host.ipset("del", name, "10.2.0.10")
    host.ipset("add", name, "10.66.0.6")
    code, said = check(host)
    assert code == 2
    assert "- r4:members: 10.66.0.6, + r4:members: 10.2.0.10" in said


@pytest.mark.parametrize("version", [4, 6])
def test_a_rule_before_the_jump_is_critical(host: FollowerHost, version: int) -> None:
    host.apply(0)
    host.iptables("-I", "INPUT", "-j", "ACCEPT", version=version)
    problem = f"the jump to reyes-input is not the first rule of INPUT (IPv{version})\n"
    assert check(host) == (2, f"CRITICAL: {problem}")
    question = ("--from", "10.2.0.99", "--port", "1000")
    assert f"note: {problem}" in ask(host, "explain", *question).stdout


def test_a_host_that_the_ruleset_has_lost_is_critical_only_if_its_jump_is_gone(
    host: FollowerHost,
) -> None:
    host.apply(0)
    lost = policy(0)
    west = replace(lost.regions[1], interfaces=())
    host.publish(0, replace(lost, regions=(lost.regions[0], west)))
    assert host.run().returncode == 23
    assert check(host)[0] == 1
    host.iptables("-F")
    code, said = check(host)
    assert code == 2
    assert "is not the first rule of INPUT (IPv4)" in said


def test_what_a_flag_of_the_follower_added_is_no_drift(host: FollowerHost) -> None:
    host.publish(0)
    assert host.run("--log-drop").returncode == 0
    assert check(host)[0] == 0
    assert host.run("--log-accept", "--log-drop").returncode == 0
    assert check(host)[0] == 0


def test_logging_that_the_configuration_asks_for_is_no_drift_until_it_is_applied(
    host: FollowerHost,
) -> None:
    host.configure(log_drop=False)
    host.apply(0)
    host.configure(log_drop=True)
    assert check(host)[0] == 0
    assert host.run().returncode == 0
    host.configure(log_drop=False)
    assert check(host)[0] == 0


def test_a_changed_configuration_is_no_drift_until_it_is_applied(host: FollowerHost) -> None:
    host.apply(0)
    host.configure(denied="reject")
    assert check(host)[0] == 0
    assert host.run().returncode == 0
    assert check(host)[0] == 0


def test_rules_that_others_opened_are_drift_whatever_the_configuration_says(
    host: FollowerHost,
) -> None:
    host.apply(0)
    host.configure(denied="reject")
    host.iptables("-F", "reyes-drop")
    code, said = check(host)
    assert (code, said) == (
        2,
        "CRITICAL: drift: the kernel's rules are not those that the last good pass left there\n",
    )


def test_a_refused_ruleset_is_critical_and_counted(host: FollowerHost) -> None:
    host.apply(0)
    (host.directory / "ruleset.gpg").write_bytes(b"\x90 nobody signed this")
    assert host.run().returncode == 21
    code, said = check(host)
    assert code == 2
    assert said.startswith("CRITICAL: the last pass failed with exit code 21: ")
    assert status(host).counters.refused == {"signature": 1}


@pytest.mark.parametrize("kept", [b"\x90 nobody signed this", None])
def test_a_ruleset_that_is_damaged_hides_nothing_that_is_missing_in_the_kernel(
    host: FollowerHost, kept: bytes | None
) -> None:
    host.apply(0)
    if kept is None:
        (host.state / "last-good.gpg").unlink()
    else:
        (host.state / "last-good.gpg").write_bytes(kept)
    assert "not those" not in check(host)[1]
    host.iptables("-F", "reyes-drop")
    assert "drift: the kernel's rules are not those that the last good" in check(host)[1]
    host.iptables("-F", "INPUT")
    assert "is not the first rule of INPUT (IPv4)" in check(host)[1]
    host.reboot()
    code, said = check(host)
    assert code == 2
    assert said.endswith("; no ruleset is in force\n")
    (host.directory / "ruleset.gpg").write_bytes(b"\x90 nobody signed this")
    assert host.run().returncode == 21
    assert "applied  " not in ask(host, "status").stdout


@pytest.mark.parametrize("how", [("--boot",), ()], ids=["boot", "pass"])
def test_rules_that_a_restart_took_and_the_kernel_refuses_are_not_told_as_applied(
    host: FollowerHost, how: tuple[str, ...]
) -> None:
    for generation in range(2):
        host.apply(generation)
    host.reboot()
    host.wrap("iptables-restore", 'case "$*" in *--version*) exec {real} "$@";; esac; exit 1')
    assert host.run(*how, file=not how).returncode == 25
    assert status(host).applied is None


def test_a_disabled_host_without_the_rules_of_one_family_says_so(host: FollowerHost) -> None:
    host.apply(0)
    (host.directory / "disabled").touch()
    host.iptables("-F", "INPUT")
    assert check(host) == (
        1,
        (
            "WARNING: disabled: nothing is touched;"
            " the jump to reyes-input is not the first rule of INPUT (IPv4)\n"
        ),
    )


def test_a_removed_host_is_critical_and_a_disabled_one_a_warning(host: FollowerHost) -> None:
    host.apply(0)
    assert host.run("--remove", file=False).returncode == 0
    assert status(host).run.outcome == "removed"
    assert check(host) == (2, "CRITICAL: no ruleset is in force\n")
    (host.directory / "disabled").touch()
    warning = "WARNING: disabled: nothing is touched; no ruleset is in force\n"
    assert check(host) == (1, warning)
    assert host.run("--remove", file=False).returncode == 0
    assert status(host).disabled, "whatever was said last"
    assert host.run().returncode == 0
    assert status(host).run.outcome == "disabled"
    assert ask(host, "status").stdout.startswith("disabled      nothing is touched\n")


def test_a_rollback_is_a_warning_and_its_rules_must_stand(host: FollowerHost) -> None:
    host.apply(0)
    host.apply(1)
    assert ask(host, "rollback").returncode == 0
    assert status(host).counters.rolled_back == 1
    code, said = check(host)
    assert code == 1
    assert said.startswith("WARNING: a rollback holds until ")
    host.iptables("-F", "reyes-drop")
    code, said = check(host)
    assert code == 2
    assert "not those that the rollback brought back" in said
    assert host.run().returncode == 0
    assert check(host)[0] == 1


def test_passes_that_stopped_and_an_end_that_passed(host: FollowerHost) -> None:
    host.publish(0, not_after=int(host_time(host)) + 2)
    assert host.run().returncode == 0
    path = host.state / "status.json"
    record = json.loads(path.read_bytes())
    record["run"]["at"] -= 1000
    record["ruleset"]["not_after"] -= 3000
    path.write_text(json.dumps(record))
    code, said = check(host)
    assert code == 2
    assert said.startswith("CRITICAL: the ruleset expired ")
    assert "; the last pass was 16 minutes ago" in said
    assert check(host, "--critical", "900")[1].startswith("CRITICAL: the last pass was ")
    assert "the last pass" not in check(host, "--warning", "9999", "--critical", "9999")[1]


def host_time(host: FollowerHost) -> float:
    return float(host.wire.run(["date", "+%s"]).stdout)


def test_audit_mode_counts_and_lets_through(host: FollowerHost) -> None:
    metrics = host.directory / "reyes.prom"
    host.configure(enforce=False, metrics_file=str(metrics))
    host.publish(0)
    assert host.run().returncode == 0
    assert host.wire.probe(list(PACKETS[Family.V4])) == [True] * len(PACKETS[Family.V4])
    assert host.run().returncode == 0
    text = metrics.read_text()
    assert "reyes_enforced 0.0" in text
    assert denied_in(text) > 0
    assert check(host) == (1, "WARNING: audit mode: what would be denied is let through\n")
    assert metrics.stat().st_mode & 0o777 == 0o644
    (host.state / "status.json").unlink()
    assert host.run().returncode == 0
    assert check(host) == (1, "WARNING: audit mode: what would be denied is let through\n")


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_packets_are_counted_by_verdict(keys: Keys, backend: Any) -> None:
    with FollowerHost(keys, backend, rehearsal=False) as host:
        metrics = host.directory / "reyes.prom"
        host.configure(metrics_file=str(metrics), log_drop=True, log_accept=True)
        host.publish(0)
        assert host.run().returncode == 0
        passed = host.wire.probe(list(PACKETS[Family.V6]))
        assert host.run().returncode == 0
        text = metrics.read_text()
        assert denied_in(text, 6) == passed.count(False)
        # The failsafe's packet and the stranger's are not judged.
        assert f'{{family="ipv6",verdict="accepted"}} {passed.count(True) - 2:.1f}' in text
        assert denied_in(text, 4) == 0
        host.publish(1)
        assert host.run().returncode == 0
        assert denied_in(metrics.read_text(), 6) == passed.count(False)


def denied_in(text: str, version: int = 4) -> float:
    name = f'reyes_packets_total{{family="ipv{version}",verdict="denied"}} '
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return float(line.removeprefix(name))


def log_line(source: str, port: int, *, prefix: str = "reyes-drop:") -> str:
    return (
        f"{prefix} IN=eth0 OUT= MAC=8e:db:11:f6:1b:44:e6:25:25:c4:4c:35:08:00 SRC={source}"
        f" DST={HERE[4]} LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=62838 DF PROTO=TCP SPT=36242"
        f" DPT={port} WINDOW=64240 RES=0x00 SYN URGP=0 \n"
    )


def denied(host: FollowerHost, text: str, *arguments: str) -> CompletedProcess[str]:
    """Ask who was denied by these lines of a log."""
    path = host.directory / "log"
    path.write_text(text)
    with (
        path.open() as lines,
        host.start(*arguments, "-", command="denied", file=False, stdin=lines.fileno()) as running,
    ):
        said, _ = running.communicate(timeout=60)
    return CompletedProcess(running.args, running.returncode, said)


def test_who_was_denied_and_which_group_he_lacked(host: FollowerHost) -> None:
    host.apply(0)
    said = denied(
        host,
        log_line("10.2.0.99", 1000) * 3
        + "1795163376.000000 usb 1-1: new device\n"
        + f"1795163376.250000 {log_line('10.66.6.6', 22, prefix='reyes-audit:')}"
        + log_line("10.2.0.10", 1000),
    ).stdout
    assert "note: by the rules in force denials are not logged: with follower.log_drop" in said
    assert said[said.index("1 x denied") :].splitlines() == [
        "1 x denied: tcp 1000 from 10.2.0.10 to 10.1.0.10",
        "  is in    sg-000000e0 (members)",
        "  now      accepted: the ruleset has changed since",
        "1 x would be denied: tcp 22 from 10.66.6.6 to 10.1.0.10, last at 2026-11-20T08:29:36Z",
        "  is in    no group: no interface in the ruleset has 10.66.6.6",
        "  lacks    nothing that helps: no rule is about tcp 22",
        "3 x denied: tcp 1000 from 10.2.0.99 to 10.1.0.10",
        "  is in    sg-000000e1 (staff)",
        "  lacks    sg-0000000b (members), 2 addresses: sg-0000000a (app) rule 1: tcp 1000",
    ]


@pytest.mark.parametrize("version", [4, 6])
def test_what_rules_in_force_log_is_not_said_to_be_silent(
    host: FollowerHost, version: int
) -> None:
    note = "note: by the rules in force denials are not logged"
    host.apply(0)
    assert note in denied(host, "").stdout
    assert host.run("--log-drop").returncode == 0
    assert note not in denied(host, "").stdout
    host.iptables("-F", "reyes-drop", version=version)
    assert note not in denied(host, "").stdout


def test_rules_in_force_that_log_nothing_are_said_to_be_silent(host: FollowerHost) -> None:
    note = "note: by the rules in force denials are not logged"
    host.apply(0)
    host.apply(1)
    assert host.run(command="rollback", file=False).returncode == 0
    host.configure(log_drop=True)
    assert host.run().returncode == 0
    assert note in denied(host, "").stdout
    assert host.run("--force").returncode == 0
    assert note not in denied(host, "").stdout


def test_where_rules_cannot_be_read_the_configuration_says_what_is_logged(
    host: FollowerHost,
) -> None:
    note = "note: by the configuration denials are not logged"
    host.apply(0)
    host.wrap("iptables-save", "exit 1")
    assert note in denied(host, "").stdout
    for logged in ({"enforce": False}, {"enforce": True, "log_drop": True}):
        host.configure(**logged)
        assert "are not logged" not in denied(host, "").stdout


def test_denials_for_machines(host: FollowerHost) -> None:
    host.configure(log_drop=True)
    host.apply(0)
    done = denied(host, log_line("10.2.0.99", 1000) * 2, "--json")
    (report,) = json.loads(done.stdout.partition("\n")[2])
    assert (report["count"], report["audit"], report["service"]) == (2, False, "tcp 1000")
    assert report["explanation"]["near_misses"][0]["source_label"] == "members"


def test_nobody_was_denied(host: FollowerHost) -> None:
    host.configure(log_drop=True)
    host.apply(0)
    assert denied(host, "").stdout.endswith("the log tells of no packet that was denied\n")


def test_following_explains_each_sender_once(host: FollowerHost) -> None:
    host.configure(log_drop=True)
    host.apply(0)
    said = denied(host, log_line("10.2.0.99", 1000) * 2, "--follow").stdout.splitlines()
    assert [line for line in said if "denied" in line or "lacks" in line] == [
        "1 x denied: tcp 1000 from 10.2.0.99 to 10.1.0.10",
        "  lacks    sg-0000000b (members), 2 addresses: sg-0000000a (app) rule 1: tcp 1000",
        "2 x denied: tcp 1000 from 10.2.0.99 to 10.1.0.10",
    ]
    ndjson = denied(host, log_line("10.2.0.99", 1000) * 2, "--follow", "--json").stdout
    assert [json.loads(line)["count"] for line in ndjson.splitlines()[1:]] == [1, 2]


class Following:
    """`reyes denied --follow`, which is told what is logged."""

    def __init__(self, host: FollowerHost) -> None:
        lines, self._log = os.pipe()
        self._running = host.start("-", "--follow", command="denied", file=False, stdin=lines)
        os.close(lines)
        self._end = Timer(PATIENCE, self._running.kill)
        self._end.start()

    def hear(self, line: str, last: str) -> list[str]:
        """Tell it a line of the log, and return what it prints up to a line that begins so."""
        os.write(self._log, line.encode())
        printed = [self._line()]
        while not printed[-1].startswith(last):
            printed.append(self._line())
        return printed

    def close(self) -> None:
        os.close(self._log)
        self._running.communicate()
        self._end.cancel()

    def _line(self) -> str:
        assert self._running.stdout
        line = self._running.stdout.readline()
        assert line, "it has ended"
        return line.rstrip("\n")


@pytest.fixture
def following(host: FollowerHost) -> Iterator[Following]:
    host.configure(log_drop=True)
    host.apply(0)
    with closing(Following(host)) as made:
        yield made


def test_following_goes_on_by_what_is_accepted_meanwhile(
    host: FollowerHost, following: Following
) -> None:
    line = log_line("10.2.0.11", 1001)
    assert following.hear(line, "  lacks")[-2:] == [
        "  is in    no group: no interface in the ruleset has 10.2.0.11",
        "  lacks    nothing that helps: no rule is about tcp 1001",
    ]
    host.apply(1)
    note, *said = following.hear(line, "  now")
    assert note.startswith("note: ruleset ")
    assert said == [
        "2 x denied: tcp 1001 from 10.2.0.11 to 10.1.0.10",
        "  is in    sg-000000e0 (members)",
        "  now      accepted: the ruleset has changed since",
    ]


def test_following_says_nothing_of_the_same_content_once_more(
    host: FollowerHost, following: Following
) -> None:
    line = log_line("10.2.0.11", 1001)
    following.hear(line, "  lacks")
    host.apply(0)
    assert following.hear(line, "2 x denied: tcp 1001") == [
        "2 x denied: tcp 1001 from 10.2.0.11 to 10.1.0.10"
    ]


def test_following_outlives_what_cannot_be_believed(
    host: FollowerHost, following: Following
) -> None:
    line = log_line("10.2.0.11", 1001)
    following.hear(line, "  lacks")
    (host.state / "last-good.gpg").write_bytes(b"\x90 nobody signed this")
    note, _ = following.hear(line, "2 x denied: tcp 1001")
    assert note.startswith("note: explained by the ruleset before: ")
    assert following.hear(line, "3 x")[0].startswith("3 x")


def test_a_follower_that_cannot_write_its_status_does_its_work(host: FollowerHost) -> None:
    host.apply(0)
    (host.state / "status.json").unlink()
    (host.state / "status.json").mkdir()
    host.publish(1)
    done = host.run()
    assert done.returncode == 0
    assert "WARNING the status of this pass is not written: " in done.stdout
    assert host.in_force() == (1, 1)


def test_a_dry_run_leaves_no_status(host: FollowerHost) -> None:
    host.publish(0)
    assert host.run("--dry-run").returncode == 0
    assert not Path(host.state).exists()
    host.apply(0)
    before = (host.state / "status.json").read_bytes()
    assert host.run("--dry-run").returncode == 0
    assert (host.state / "status.json").read_bytes() == before


def test_json_goes_with_every_verdict(host: FollowerHost) -> None:
    done = ask(host, "check", "--json")
    assert done.returncode == 2
    report = json.loads(done.stdout)
    assert report["verdict"] == "critical"
    assert report["status"] is None


@pytest.mark.parametrize(
    ("interfaces", "noted"), [(["eth0"], True), (["eth+"], True), (["eth0", "br+"], False)]
)
def test_an_interface_whose_packets_arrive_on_another_is_noted(
    host: FollowerHost, interfaces: list[str], noted: bool
) -> None:
    host.mount("-t", "sysfs", "sysfs", "/sys")  # the machine's shows another network
    host.configure(traffic="interface", interfaces=interfaces)
    note = f"note    follower.interfaces names {interfaces[0]}, and what eth0 receives arrives on "
    assert note not in ask(host, "check-config", "--follower").stdout
    host.wire.host.ip("link add br0 type bridge", "link set eth0 master br0")
    assert (f"{note}br0" in ask(host, "check-config", "--follower").stdout) == noted
