"""Early boot: the last good rules, before there is a network."""

import json
import shutil
from pathlib import Path

import pytest

from reyes.cli.identity import machine_id
from tests.kernel.followers import FollowerHost
from tests.kernel.generations import INSTANCE, UNFILTERED

pytestmark = pytest.mark.kernel

IDS = ("/sys/class/dmi/id/product_uuid", "/etc/machine-id")


@pytest.fixture
def booting(host: FollowerHost) -> FollowerHost:
    """A host that was shut down with its rules in force, and whose network is still down."""
    host.apply(0)
    host.apply(1)
    host.reboot()
    return host


def boot(host: FollowerHost) -> tuple[int, str]:
    """Run what the unit runs while no way leads anywhere."""
    host.wire.host.ip("link set lo down", "route delete default", "route delete ::/0")
    done = host.run("--boot", file=False)
    return done.returncode, done.stdout


def test_the_last_good_rules_are_in_force_before_the_network_is(booting: FollowerHost) -> None:
    code, said = boot(booting)
    assert code == 0, said
    assert booting.in_force() == (1, 1)
    assert "INFO unchanged" in booting.run().stdout


def test_rules_that_have_expired_are_better_than_none(booting: FollowerHost) -> None:
    newer = booting.remembered()["accepted"]["serial"] + 1
    booting.publish(2, ahead=-7200, serial=newer)
    keep_what_is_published(booting)
    code, said = boot(booting)
    assert code == 0, said
    assert "WARNING the last good ruleset has expired" in said
    assert booting.in_force() == (2, 2)
    assert booting.run().returncode == 20
    assert booting.in_force() == (2, 2)


def remember(host: FollowerHost, machine: str) -> None:
    """Have the host know only by its state who it is."""
    state = host.remembered()
    state["identity"] = {"instance_id": INSTANCE, "region": "us-west-2", "machine": machine}
    (host.state / "state.json").write_text(json.dumps(state))
    host.configure(instance_id=None, region=None)


def test_a_host_knows_who_it_is_without_a_metadata_service(booting: FollowerHost) -> None:
    remember(booting, machine_id())
    code, said = boot(booting)
    assert code == 0, said
    assert booting.in_force() == (1, 1)


def test_who_asks_about_a_packet_needs_no_metadata_service_either(booting: FollowerHost) -> None:
    remember(booting, machine_id())
    question = ("--from", "10.0.0.9", "--proto", "tcp", "--port", "9")
    done = booting.run(*question, command="explain", file=False)
    assert f"taken as {INSTANCE}, as before" in done.stdout
    assert done.returncode == 1, done.stdout


def test_a_host_does_not_believe_to_be_the_one_that_its_image_was_taken_of(
    booting: FollowerHost,
) -> None:
    remember(booting, machine_id())
    another = booting.directory / "id"
    another.write_text("ec2c0de0-0000-4000-8000-000000000001\n")
    for path in IDS:
        if Path(path).exists():
            booting.mount("--bind", str(another), path)
    before = booting.kernel()
    code, said = boot(booting)
    assert code == 78
    assert "who this host is cannot be told" in said
    assert booting.kernel() == before


@pytest.mark.parametrize("damage", [b"", b"\x80", b"not signed", None])
def test_a_last_good_ruleset_that_is_damaged_is_refused(
    host: FollowerHost, damage: bytes | None
) -> None:
    host.apply(0)
    before = host.kernel()
    path = host.state / "last-good.gpg"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2] if damage is None else damage)
    code, said = boot(host)
    assert code == (75 if damage == b"" else 21), said
    assert ("no ruleset is kept" if damage == b"" else "the ruleset that is kept here") in said
    assert host.kernel() == before
    assert host.in_force() == (0, 0)


@pytest.mark.parametrize("remembers", [True, False])
def test_a_boot_that_fails_leaves_no_host_without_rules_that_remembers_some(
    booting: FollowerHost, *, remembers: bool
) -> None:
    (booting.state / "last-good.gpg").write_bytes(b"\x80")
    if not remembers:
        (booting.state / "previous.json").unlink()
    code, said = boot(booting)
    assert code == 21, said
    assert ("rules of an earlier time are in force" in said) is remembers
    assert "applied  " not in booting.run(command="status", file=False).stdout
    if not remembers:
        assert "no rules are in force" in said
        assert booting.in_force() == (UNFILTERED, UNFILTERED)
    else:  # what both rulesets let in is forgotten with the damaged one
        assert "staff" in said
        assert "nobody remembers its members" in said
        assert booting.run(command="check").returncode == 2
    assert booting.run().returncode == 0
    assert booting.in_force() == (1, 1)


@pytest.mark.parametrize("configured", [True, False])
def test_a_state_that_is_damaged_leaves_no_host_without_rules(
    booting: FollowerHost, *, configured: bool
) -> None:
    """Nobody remembers whether the newest rules were good, so those before come; sets that both
    need are empty."""
    before = (booting.state / "previous.json").read_bytes()
    (booting.state / "state.json").write_bytes(b'{"acc')
    if not configured:
        booting.configure(instance_id=None, region=None)
    for _ in range(2):
        done = booting.run("--boot", file=False)
        assert done.returncode == 78, done.stdout
        rules = booting.saved()
        assert any("dport 1000" in rule for rule in rules)
        assert not any("dport 1001" in rule for rule in rules)
    assert (booting.state / "previous.json").read_bytes() == before
    booting.configure(instance_id=INSTANCE, region="us-west-2")
    assert booting.run().returncode == 0
    assert booting.in_force() == (1, 1)


def test_rules_that_the_kernel_refuses_leave_no_host_without_rules_at_boot(
    booting: FollowerHost,
) -> None:
    booting.publish(2)
    keep_what_is_published(booting)
    booting.wrap(
        "ip6tables-restore",
        'case "$*" in *--version*) exec {real} "$@";; esac; text="$(cat)"\n'
        'case "$text" in *"dport 1002"*) exit 1;; esac; echo "$text" | exec {real} "$@"',
    )
    code, said = boot(booting)
    assert code == 25, said
    assert booting.in_force() == (0, 0)
    booting.wrap("ip6tables-restore")
    assert booting.run().returncode == 0
    assert booting.in_force() == (2, 2)


def keep_what_is_published(host: FollowerHost) -> None:
    shutil.copyfile(host.directory / "ruleset.gpg", host.state / "last-good.gpg")


def test_an_older_genuine_ruleset_than_the_accepted_one_is_refused(booting: FollowerHost) -> None:
    booting.publish(2, serial=1)
    keep_what_is_published(booting)
    code, said = boot(booting)
    assert code == 22, said
    assert "rules of an earlier time are in force" in said


def test_a_ruleset_that_was_kept_when_its_pass_was_killed_comes_in_force(
    booting: FollowerHost,
) -> None:
    booting.publish(2)
    keep_what_is_published(booting)
    code, said = boot(booting)
    assert code == 0, said
    assert booting.in_force() == (2, 2)


def test_a_host_that_never_had_a_ruleset_says_so(host: FollowerHost) -> None:
    code, said = boot(host)
    assert code == 75
    assert "no ruleset is kept" in said


def test_connection_tracking_is_set_up_at_boot(booting: FollowerHost) -> None:
    """Only the first network namespace may have the room: all others are told they may not."""
    booting.configure(nf_conntrack_max=2**31 - 1, established="strict")
    done = booting.run("--boot", file=False)
    assert done.returncode == 0, done.stdout
    assert "cannot raise /proc/sys/net/netfilter/nf_conntrack_max to 2147483647" in done.stdout
    assert "INFO nf_conntrack_tcp_loose set to 0" in done.stdout
    assert booting.in_force() == (1, 1)


def test_a_dry_run_knows_who_it_is_without_a_metadata_service(host: FollowerHost) -> None:
    host.apply(0)
    remember(host, machine_id())
    done = host.run("--dry-run")
    assert done.returncode == 0, done.stdout
    assert f"taken as {INSTANCE}, as before" in done.stdout
