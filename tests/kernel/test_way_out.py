"""`reyes follower --remove` and `reyes rollback` on hosts where something else is broken."""

from collections.abc import Sequence

import pytest

from reyes.adapters.programs import find_program
from tests.kernel.followers import FollowerHost, Keys
from tests.kernel.generations import UNFILTERED
from tests.kernel.judge import Backend

pytestmark = pytest.mark.kernel

FOREIGN: dict[Backend, Backend] = {"nft": "legacy", "legacy": "nft"}


@pytest.mark.parametrize("broken", ["state directory", "configuration"])
def test_the_way_out_needs_nothing_but_the_kernel(host: FollowerHost, broken: str) -> None:
    host.state.mkdir()
    host.mount("-t", "tmpfs", "-o", "size=1m,mode=0755", "state", str(host.state))
    host.apply(0)
    if broken == "configuration":
        host.configure(filtered_cidrs="ten")
        host.mount("-t", "tmpfs", "none", "/var/lib")  # the default, as nothing else can be read
    else:
        host.mount("-o", "remount,ro", str(host.state))
    done = host.run("--remove", file=False)
    assert done.returncode == 0, done.stdout
    assert "removed all of Reyes" in done.stdout
    assert "a group that lets in all of the tunnel opens this host now" in done.stdout
    assert not any("reyes-" in line for line in (*host.saved(4), *host.saved(6)))


def test_the_way_out_leads_through_both_backends(host: FollowerHost) -> None:
    host.apply(0)
    host.use("legacy")
    done = host.run("--remove", file=False)
    assert done.returncode == 0, done.stdout
    assert "removed all of Reyes" in done.stdout
    host.use("nft")
    assert not any("reyes-" in line for line in (*host.saved(4), *host.saved(6)))
    assert host.sets() == set()
    assert "there was nothing of Reyes" in host.run("--remove", file=False).stdout


def test_no_rollback_where_the_other_backend_would_go_on_denying(host: FollowerHost) -> None:
    for generation in range(2):
        host.apply(generation)
    kernel, state = host.kernel(), host.remembered()
    for rule in (("-N", "reyes-input"), ("-A", "INPUT", "-j", "reyes-input")):
        host.wire.run(["ip6tables-legacy", "-w", *rule])
    done = host.run(command="rollback")
    assert done.returncode == 25, done.stdout
    assert "in the backend of iptables that this host does not use" in done.stdout
    assert "reyes follower --remove" in done.stdout
    assert (host.kernel(), host.remembered()) == (kernel, state)
    assert host.run("--remove", file=False).returncode == 0
    assert host.in_force() == (UNFILTERED, UNFILTERED)


def test_rules_of_others_in_the_other_backend_keep_nobody_from_a_rollback(
    host: FollowerHost,
) -> None:
    for generation in range(2):
        host.apply(generation)
    host.wire.run(["ip6tables-legacy", "-w", "-A", "OUTPUT", "-j", "ACCEPT"])
    split = "problem the tables of ip6tables are split"
    assert split in host.run("--follower", command="check-config").stdout
    done = host.run(command="rollback")
    assert done.returncode == 0, done.stdout
    assert host.in_force() == (0, 0)
    break_save(host, "ip6tables-legacy-save")
    done = host.run(command="rollback")
    assert done.returncode == 0, done.stdout
    assert "the other backend of iptables cannot be looked at" in done.stdout
    assert host.in_force() == (0, 0)


def test_the_other_backend_keeps_nobody_from_the_way_out(host: FollowerHost) -> None:
    host.apply(0)
    host.wire.run(["ip6tables-legacy", "-w", "-A", "OUTPUT", "-j", "ACCEPT"])
    break_save(host, "ip6tables-legacy-save")
    done = host.run("--remove", file=False)
    assert done.returncode == 25
    assert "ip6tables-legacy-save refused: broken" in done.stdout
    assert not any("reyes-" in line for line in (*host.saved(4), *host.saved(6)))


def break_save(host: FollowerHost, command: str) -> None:
    broken = host.directory / "bin" / command
    broken.write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    broken.chmod(0o755)


def test_the_way_out_needs_no_ipset(host: FollowerHost) -> None:
    host.apply(0)
    (host.directory / "bin" / "ipset").unlink()
    ipset = find_program("ipset")
    assert ipset
    host.mount("--bind", "/dev/null", ipset)
    done = host.run("--remove", file=False)
    assert done.returncode == 0, done.stdout
    assert "cannot find the command ipset: the sets stay" in done.stdout
    assert not any("reyes-" in line for line in (*host.saved(4), *host.saved(6)))


def test_the_way_out_needs_no_ipset_that_works(host: FollowerHost) -> None:
    host.apply(0)
    host.wrap("ipset", "echo Cannot open session to kernel. >&2; exit 1")
    done = host.run("--remove", file=False)
    assert done.returncode == 0, done.stdout
    assert "Cannot open session to kernel.: the sets stay" in done.stdout
    assert host.in_force() == (UNFILTERED, UNFILTERED)
    host.wrap("ipset")
    assert host.run("--remove", file=False).returncode == 0
    assert host.sets() == set()


def test_the_way_out_of_one_family_does_not_need_the_other(host: FollowerHost) -> None:
    host.apply(0)
    break_save(host, "iptables-save")
    break_save(host, "iptables-nft-save")
    done = host.run("--remove", file=False)
    assert done.returncode == 25, done.stdout
    assert "all else of Reyes is removed" in done.stdout
    assert "iptables-nft-save refused: broken" in done.stdout
    assert host.in_force() == (0, UNFILTERED)
    mend_save(host)
    assert "removed all of Reyes" in host.run("--remove", file=False).stdout
    assert host.in_force() == (UNFILTERED, UNFILTERED)
    assert host.sets() == set()


def test_chains_that_rules_of_others_lead_into_are_said_to_stay(host: FollowerHost) -> None:
    host.apply(0)
    for version in (4, 6):
        host.iptables("-A", "OUTPUT", "-j", "reyes-drop", version=version)
    for _ in range(2):
        done = host.run("--remove", file=False)
        assert done.returncode == 0, done.stdout
        assert done.stdout.splitlines()[0] == (
            "removed all of Reyes but IPv4 reyes-drop, IPv6 reyes-drop: empty now, and in use by"
            " rules of others"
        )
    for version in (4, 6):
        host.iptables("-F", "OUTPUT", version=version)
    assert host.run("--remove", file=False).stdout.startswith("removed all of Reyes\n")


def test_half_a_way_out_is_drift_and_nothing_to_go_back_to(host: FollowerHost) -> None:
    host.apply(0)
    host.apply(1)
    break_save(host, "iptables-save")
    break_save(host, "iptables-nft-save")
    assert host.run("--remove", file=False).returncode == 25
    assert host.in_force() == (1, UNFILTERED)
    mend_save(host)
    host.publish(2)
    assert host.run().returncode == 0
    assert host.in_force() == (2, 2)
    assert host.run(command="rollback").returncode == 0
    assert host.in_force() == (1, 1)


def mend_save(host: FollowerHost) -> None:
    (host.directory / "bin" / "iptables-nft-save").unlink()
    host.wrap("iptables-save")


@pytest.mark.parametrize("command", ["iptables-save", "ip6tables-restore"])
def test_the_way_out_goes_by_each_backends_own_commands_where_others_are_broken(
    host: FollowerHost, command: str
) -> None:
    host.apply(0)
    break_save(host, command)
    for said in ("removed all of Reyes", "there was nothing of Reyes"):
        done = host.run("--remove", file=False)
        assert done.returncode == 0, done.stdout
        assert said in done.stdout
        assert host.in_force() == (UNFILTERED, UNFILTERED)
        assert "applied" not in host.remembered()


def test_broken_commands_of_one_backend_hide_no_rules_of_the_other(keys: Keys) -> None:
    with FollowerHost(keys, "legacy") as host:
        host.apply(0)
        for command in ("iptables-save", "iptables-nft-save"):
            break_save(host, command)
        done = host.run("--remove", file=False)
        assert done.returncode == 25, done.stdout
        assert host.in_force() == (UNFILTERED, UNFILTERED)


def test_rules_that_no_command_shows_are_not_said_to_be_gone(host: FollowerHost) -> None:
    host.apply(0)
    break_save(host, "iptables-save")
    nft = find_program("iptables-nft-save")
    assert nft
    host.mount("--bind", "/dev/null", nft)
    done = host.run("--remove", file=False)
    assert done.returncode == 78, done.stdout
    assert "there was nothing of Reyes" not in done.stdout
    assert "applied" in host.remembered()


def test_chains_and_sets_are_taken_out_where_no_rule_is_left(host: FollowerHost) -> None:
    host.apply(0)
    for version in (4, 6):
        host.iptables("-F", version=version)
    for prefix in ("iptables", "ip6tables"):
        break_save(host, f"{prefix}-save")
    done = host.run("--remove", file=False)
    assert "removed all of Reyes" in done.stdout
    assert host.sets() == set()
    chains = host.wire.run(["iptables-nft-save", "-t", "filter"]).stdout
    assert "reyes-" not in chains


def test_a_command_of_the_other_backend_that_cannot_be_started_keeps_nobody_from_a_rollback(
    host: FollowerHost,
) -> None:
    host.apply(0)
    host.apply(1)
    host.wire.run(["iptables-legacy", "-w", "-A", "OUTPUT", "-j", "ACCEPT"])
    legacy = host.directory / "bin" / "iptables-legacy-save"
    legacy.write_text("#!/nonexistent\n")
    legacy.chmod(0o755)
    assert host.run(command="rollback").returncode == 0
    assert host.in_force() == (0, 0)


def test_no_way_out_loads_tables_of_a_backend_that_holds_no_rules(host: FollowerHost) -> None:
    def loaded() -> str:
        names = [f"/proc/thread-self/net/{name}_names" for name in ("ip_tables", "ip6_tables")]
        return host.wire.run(["cat", *names]).stdout

    host.apply(0)
    host.apply(1)
    for command, *arguments in (("rollback",), ("follower", "--remove")):
        done = host.run(*arguments, command=command, file=False)
        assert done.returncode == 0, done.stdout
    assert loaded() == ""
    host.wire.run(["iptables-legacy-save", "-t", "filter"])
    assert loaded() != ""


def test_each_family_of_the_other_backend_is_looked_at(host: FollowerHost) -> None:
    host.apply(0)
    host.apply(1)
    for prefix in ("iptables", "ip6tables"):
        for rule in (("-N", "reyes-input"), ("-A", "INPUT", "-j", "reyes-input")):
            host.wire.run([f"{prefix}-legacy", "-w", *rule])
    break_save(host, "iptables-legacy-save")
    assert host.run(command="rollback").returncode == 25
    done = host.run("--remove", file=False)
    assert done.returncode == 25, done.stdout
    assert "iptables-legacy-save refused: broken" in done.stdout
    left = host.wire.run(["ip6tables-legacy-save", "-t", "filter"]).stdout
    assert "reyes-" not in left


@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("nft", ("iptables", "ip6tables")),
        ("nft", ("ip6tables",)),
        ("legacy", ("iptables", "ip6tables")),
    ],
)
def test_commands_of_both_backends_change_nothing_but_lead_out(
    keys: Keys, name: Backend, prefixes: Sequence[str]
) -> None:
    """What is written would never show, and be written again and again."""
    with FollowerHost(keys, name) as host:
        host.apply(0)
        before = host.kernel()
        for prefix in prefixes:
            mixed = host.directory / "bin" / f"{prefix}-save"
            mixed.write_text(f'#!/bin/sh\nexec {prefix}-{FOREIGN[name]}-save "$@"\n')
        host.publish(1)
        reads, writes = (f"{prefixes[0]}-{end} that of" for end in ("save is", "restore"))
        mixture = f"{reads} {FOREIGN[name]}, and {writes} {name}"
        for arguments in ((), ("--force",)):
            done = host.run(*arguments)
            assert done.returncode == 25, done.stdout
            assert mixture in done.stdout
        done = host.run(command="rollback")
        assert done.returncode == 25, done.stdout
        assert host.kernel() == before
        assert mixture in host.run(command="check-config").stdout
        done = host.run("--remove", file=False)
        assert done.returncode == 0, done.stdout
        assert host.in_force() == (UNFILTERED, UNFILTERED)
        assert host.sets() == set()
