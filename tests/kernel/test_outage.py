"""Rules that somebody flushes while no new ruleset is to be had, or just before one arrives."""

import json
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.kernel.followers import FollowerHost
from tests.kernel.generations import policy

pytestmark = pytest.mark.kernel


def members(host: FollowerHost) -> list[str]:
    return sorted(line for line in host.ipset("save").splitlines() if line.startswith("add "))


def flush(host: FollowerHost) -> None:
    host.iptables("-F")
    host.iptables("-F", version=6)


def gone(host: FollowerHost) -> None:
    (host.directory / "ruleset.gpg").unlink()


def garbled(host: FollowerHost) -> None:
    (host.directory / "ruleset.gpg").write_bytes(b"\x90garbage")


def expired(host: FollowerHost) -> None:
    serial = host.remembered()["accepted"]["serial"] + 1
    host.publish(1, ahead=-7200, serial=serial)


def lost(host: FollowerHost) -> None:
    content = policy(1)
    nobody = tuple(replace(region, interfaces=()) for region in content.regions[1:])
    host.publish(1, replace(content, regions=(content.regions[0], *nobody)))


OUTAGES: dict[str, tuple[Callable[[FollowerHost], None], int]] = {
    "no ruleset": (gone, 78),
    "garbage": (garbled, 21),
    "an expired ruleset": (expired, 20),
    "a ruleset without this host": (lost, 23),
}


@pytest.mark.parametrize(("outage", "code"), OUTAGES.values(), ids=OUTAGES)
def test_what_is_in_force_is_looked_after_all_the_same(
    host: FollowerHost, outage: Callable[[FollowerHost], None], code: int
) -> None:
    host.apply(0)
    outage(host)
    flush(host)
    for repaired in (True, False):
        done = host.run()
        assert done.returncode == code, done.stdout
        assert host.in_force() == (0, 0)
        assert ("repaired what is in force" in done.stdout) is repaired


@pytest.mark.parametrize(("outage", "code"), OUTAGES.values(), ids=OUTAGES)
def test_what_is_in_force_comes_back_after_a_restart_all_the_same(
    host: FollowerHost, outage: Callable[[FollowerHost], None], code: int
) -> None:
    host.apply(0)
    outage(host)
    assert host.run().returncode == code
    host.reboot()
    assert host.run("--boot", file=False).returncode == 0
    assert host.in_force() == (0, 0)


def test_a_disabled_host_is_left_alone_all_the_same(host: FollowerHost) -> None:
    host.apply(0)
    flush(host)
    (host.directory / "disabled").touch()
    gone(host)
    before = host.kernel()
    assert host.run().returncode == 0
    assert host.kernel() == before


def test_the_way_back_is_no_table_that_somebody_flushed(host: FollowerHost) -> None:
    host.apply(0)
    flush(host)
    host.apply(1)
    assert host.run(command="rollback").returncode == 0
    assert host.in_force() == (0, 0)


def test_what_a_rollback_holds_is_repaired_before_the_next_ruleset(host: FollowerHost) -> None:
    host.apply(0)
    host.apply(1)
    assert host.run(command="rollback").returncode == 0
    flush(host)
    host.apply(2)
    assert host.run(command="rollback").returncode == 0
    assert host.in_force() == (0, 0)


def test_a_flushed_host_does_not_roll_back_to_that(host: FollowerHost) -> None:
    host.apply(0)
    host.apply(1)
    flush(host)
    for _ in range(2):
        assert host.run(command="rollback").returncode == 0
        assert host.in_force() == (0, 0)


def test_who_is_asked_is_asked_about_a_repair_too(host: FollowerHost) -> None:
    host.apply(0)
    flush(host)
    done = host.run("--confirm", "1")
    assert done.returncode == 25, done.stdout
    assert "it was not confirmed" in done.stdout
    assert "the next run tries again" in done.stdout
    assert host.run().returncode == 0
    assert host.in_force() == (0, 0)


def test_what_was_removed_stays_so_while_no_ruleset_is_to_be_had(host: FollowerHost) -> None:
    host.apply(0)
    assert host.run("--remove", file=False).returncode == 0
    gone(host)
    assert host.run().returncode == 78
    assert host.sets() == set()


@pytest.mark.parametrize("older", [True, False])
def test_rules_whose_successors_are_refused_are_looked_after(
    host: FollowerHost, *, older: bool
) -> None:
    if older:
        host.apply(0)
    host.apply(1)
    host.wrap("unshare", "exit 1")
    host.publish(2)
    assert host.run().returncode == 78
    for spoil in (flush, lambda host: host.ipset("flush")):
        spoil(host)
        done = host.run()
        assert done.returncode == 78
        assert "WARNING repaired what is in force, as the rehearsal has refused" in done.stdout
        assert host.in_force() == (1, 1)
        assert "repaired" not in host.run().stdout
    counters = json.loads((host.state / "status.json").read_bytes())["counters"]
    assert counters["repaired"] == 2
    host.reboot()
    assert host.run("--boot", file=False).returncode == 0
    assert host.in_force() == (1, 1)
    flush(host)
    gone(host)
    assert host.run().returncode == 78
    assert host.in_force() == (1, 1)
    host.wrap("unshare")
    host.apply(3)
    assert host.run(command="rollback").returncode == 0
    assert host.in_force() == (1, 1)


def test_members_are_compared_while_no_ruleset_is_to_be_had(host: FollowerHost) -> None:
    host.apply(0)
    gone(host)
    right = members(host)
    (name,) = (one for one in host.sets() if one.startswith("r4:members"))
    member = next(line for line in host.ipset("list", name).splitlines() if line[0].isdigit())
    host.ipset("del", name, member)
    host.ipset("add", name, "203.0.113.99")
    state = json.loads((host.state / "state.json").read_bytes())
    (host.state / "state.json").write_text(json.dumps({**state, "members_checked_at": 1}))
    assert host.run().returncode == 78
    assert members(host) == right


def test_repairs_are_counted_whatever_else_a_pass_does(host: FollowerHost) -> None:
    host.apply(0)
    flush(host)
    host.publish(0)
    done = host.run()
    assert "WARNING repaired serial=" in done.stdout
    flush(host)
    gone(host)
    assert host.run().returncode == 78
    assert json.loads((host.state / "status.json").read_bytes())["counters"]["repaired"] == 2


def test_a_table_that_is_to_be_exclusive_is_no_repair(host: FollowerHost) -> None:
    host.apply(0)
    host.configure(filter_table="exclusive")
    host.iptables("-A", "INPUT", "-s", "192.0.2.1", "-j", "ACCEPT")
    gone(host)
    done = host.run()
    assert done.returncode == 78
    assert "WARNING repaired" not in done.stdout
    assert "put the configuration in force" in done.stdout
    assert not any("192.0.2.1" in rule for rule in host.saved(4))


@pytest.mark.parametrize(("outage", "code"), OUTAGES.values(), ids=OUTAGES)
@pytest.mark.parametrize("spoiled", [False, True], ids=["intact", "spoiled"])
def test_a_changed_configuration_waits_for_no_ruleset(
    host: FollowerHost, outage: Callable[[FollowerHost], None], code: int, spoiled: bool
) -> None:
    host.apply(0)
    host.configure(failsafe=[{"cidr": "192.0.2.1", "protocol": "tcp", "port": 22}], enforce=False)
    outage(host)
    if spoiled:
        host.iptables("-F", "reyes-drop")
    for put in (True, False):
        done = host.run()
        assert done.returncode == code, done.stdout
        assert ("put the configuration in force" in done.stdout) is put
        assert any("failsafe: tcp 22 from 192.0.2.1" in rule for rule in host.saved(4))
    report = json.loads((host.state / "status.json").read_bytes())
    assert report["applied"]["enforced"] is False
    assert report["applied"]["seconds"] > 0.01, "a commit with its rehearsal"
    host.configure(enforce=True)
    host.run()
    assert any(r.startswith("-A reyes-drop") and r.endswith("-j DROP") for r in host.saved(4))


@pytest.mark.parametrize("denied", ["drop", "reject"], ids=["the same", "changed"])
def test_a_ruleset_that_was_never_in_force_comes_in_by_no_outage(
    host: FollowerHost, denied: str
) -> None:
    host.apply(0)
    host.wrap("unshare", "exit 1")
    host.publish(1)
    assert host.run().returncode == 78
    host.wrap("unshare")
    host.configure(denied=denied)
    gone(host)
    assert host.run().returncode == 78
    assert host.in_force() == (0, 0)


def test_a_changed_configuration_waits_for_who_is_to_be_asked(host: FollowerHost) -> None:
    host.apply(0)
    before = host.saved(4)
    host.configure(denied="reject")
    gone(host)
    assert host.run("--confirm", "1").returncode == 78
    assert host.saved(4) == before


def test_a_host_that_is_disabled_while_it_waits_is_left_alone(host: FollowerHost) -> None:
    host.apply(0)
    flush(host)
    gone(host)
    host.wrap("ip6tables-save", 'touch "$REYES_TEST/disabled"; exec {real} "$@"')
    before = host.kernel()
    assert host.run().returncode == 78
    assert host.kernel() == before
