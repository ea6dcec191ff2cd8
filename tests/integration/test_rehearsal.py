"""The rehearsal's own ways to fail, with commands that do as they are told."""

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from reyes.adapters import rehearsal
from reyes.adapters.deadline import deadline
from reyes.adapters.rehearsal import check_possible, rehearse
from reyes.errors import ConfigError, KernelError, UnreachableError
from reyes.net import Family
from reyes.netfilter.live import LiveKernel, LiveTable
from tests.commits import BOTH_RULES, WANTED, dataplane, in_force
from tests.worlds import allow, tcp

EMPTY = LiveKernel(tuple(LiveTable(family) for family in Family))
COMMANDS = ("ipset", "iptables-restore", "ip6tables-restore")
UNSHARE = """
case "$*" in *--net*) ;; *) exit 9 ;; esac
while case "$1" in --*) ;; *) false ;; esac; do shift; done
exec "$@"
"""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that write down what they are fed, and an `unshare` that shares all."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script(tmp_path, "unshare", UNSHARE)
    for command in COMMANDS:
        script(tmp_path, command, f'cat >"{tmp_path}/{command}.fed"')
    return tmp_path


def script(stage: Path, command: str, text: str) -> None:
    (stage / command).write_text(f"#!/bin/sh\n{text}\n")
    (stage / command).chmod(0o755)


def test_each_command_is_fed_its_own_part(stage: Path) -> None:
    rehearse(WANTED, EMPTY)
    fed = {command: (stage / f"{command}.fed").read_text() for command in COMMANDS}
    assert fed["ipset"].startswith("create r4:")
    assert "add " not in fed["ipset"]
    for command in COMMANDS[1:]:
        assert fed[command].startswith("*filter\n:reyes-input - [0:0]\n")
        assert fed[command].endswith("COMMIT\n")


def test_a_family_that_the_host_lacks_is_not_rehearsed(stage: Path) -> None:
    rehearse(WANTED, LiveKernel((LiveTable(Family.V4),)))
    assert not (stage / "ip6tables-restore.fed").exists()


def test_what_the_live_kernel_shows_already_is_not_tried_again(stage: Path) -> None:
    live = in_force().read()
    more = dataplane(*BOTH_RULES, allow(tcp(22), "10.4.0.0/16", "10.5.0.0/16"))
    rehearse(more, LiveKernel((live.tables[0], LiveTable(Family.V6)), live.sets))
    fed = {command: (stage / f"{command}.fed").read_text() for command in COMMANDS}
    assert "-A reyes-accept " not in fed["iptables-restore"]
    assert "-A reyes-ingress " in fed["iptables-restore"]
    assert "-A reyes-accept " in fed["ip6tables-restore"]
    for entry in more.sets:
        assert f"create {entry.name} " in fed["ipset"]


def test_sets_of_chains_that_stay_are_not_made(stage: Path) -> None:
    live = in_force().read()
    spoiled = replace(live.tables[0], rules={**live.tables[0].rules, "reyes-accept": ()})
    rehearse(WANTED, replace(live, tables=(spoiled,)))
    assert not (stage / "ipset.fed").exists()
    assert (stage / "iptables-restore.fed").exists()
    assert not (stage / "ip6tables-restore.fed").exists()


def test_where_no_chain_differs_nothing_is_rehearsed(stage: Path) -> None:
    (stage / "unshare").unlink()
    rehearse(WANTED, in_force().read())
    assert list(stage.glob("*.fed")) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_refusal_shows_the_line_at_fault(stage: Path, command: str) -> None:
    script(stage, command, "echo 'error in line 3: unknown match' >&2; exit 2")
    with pytest.raises(KernelError, match=f"in the rehearsal {command} refused") as caught:
        rehearse(WANTED, EMPTY)
    assert "\n>     3 " in caught.value.message
    assert caught.value.hint == "the live kernel was not touched"


def test_the_other_way_into_a_namespace_is_tried(stage: Path) -> None:
    script(stage, "unshare", f'case "$1" in --net) exit 1 ;; esac; {UNSHARE}')
    rehearse(WANTED, EMPTY)
    assert (stage / "ip6tables-restore.fed").exists()


def test_where_there_is_no_way_the_configuration_must_say_so(stage: Path) -> None:
    script(stage, "unshare", "echo 'Operation not permitted' >&2; exit 1")
    with pytest.raises(ConfigError, match="may not make network namespaces") as caught:
        rehearse(WANTED, EMPTY)
    assert caught.value.hint
    assert "follower.rehearsal: false" in caught.value.hint
    assert not (stage / "ipset.fed").exists()


def test_a_host_without_unshare_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "find_program", lambda _: None)
    monkeypatch.setattr(rehearsal, "_WAYS", (("absent", "--net"),))
    with pytest.raises(ConfigError, match="cannot start absent: No such file"):
        rehearse(WANTED, EMPTY)


def test_a_rehearsal_that_hangs_ends(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(stage, "ipset", 'echo $$ >"$0.pid"; exec sleep 60')
    monkeypatch.setattr(rehearsal, "COMMAND_SECONDS", 1)
    begin = time.monotonic()
    with pytest.raises(KernelError, match="did not end within 1 s"):
        rehearse(WANTED, EMPTY)
    assert time.monotonic() - begin < 30
    assert has_ended(int((stage / "ipset.pid").read_text()))


def test_a_rehearsal_that_is_cut_off_leaves_nothing_behind(stage: Path) -> None:
    script(stage, "ipset", 'echo $$ >"$0.pid"; exec sleep 60')
    with pytest.raises(UnreachableError), deadline(1):
        rehearse(WANTED, EMPTY)
    assert has_ended(int((stage / "ipset.pid").read_text()))


def has_ended(process: int) -> bool:
    """Tell whether a process ends within a second; one that nobody waits for is a zombie."""
    stat = Path(f"/proc/{process}/stat")
    for _ in range(100):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_a_shell_that_dies_is_no_success(stage: Path) -> None:
    script(stage, "ipset", "kill -KILL $PPID")
    with pytest.raises(KernelError, match="the rehearsal failed"):
        rehearse(WANTED, EMPTY)


def test_whether_a_rehearsal_is_possible_is_told_without_one(stage: Path) -> None:
    check_possible()
    script(stage, "unshare", f'case "$1" in --net) exit 1 ;; esac; {UNSHARE}')
    check_possible()
    assert list(stage.glob("*.fed")) == []


def test_what_a_rehearsal_would_fail_of_is_told_without_one(
    stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(stage, "unshare", "exit 1")
    with pytest.raises(ConfigError, match="may not make network namespaces"):
        check_possible()
    script(stage, "unshare", "echo 'no shell' >&2; exit 127")
    with pytest.raises(KernelError, match="the rehearsal failed: no shell"):
        check_possible()
    (stage / "unshare").unlink()
    monkeypatch.setattr(rehearsal, "find_program", lambda name: str(stage / name))
    with pytest.raises(ConfigError, match="cannot start unshare: No such file"):
        check_possible()
