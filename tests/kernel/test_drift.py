"""What others change of Reyes's part of the kernel: the next run finds it and repairs it."""

import json
import re

import pytest

from reyes.adapters.kernel import Kernel
from reyes.netfilter.compiler import compile_policy
from reyes.settling import MEMBERS_CHECK_SECONDS
from tests.bench.shapes import ADDRESS, policy_with, rules_of
from tests.kernel.followers import FollowerHost, Keys
from tests.kernel.judge import BACKENDS, Backend, backend, commit
from tests.kernel.packets import Wire
from tests.worlds import tcp

pytestmark = pytest.mark.kernel


CHANGES = {
    "a rule is deleted": "-D reyes-ingress 2",
    "the final drop is deleted": "-F reyes-drop",
    "the final drop accepts": "-I reyes-drop 1 -j ACCEPT",
    "a rule is inserted": "-I reyes-input 1 -p tcp -j ACCEPT",
    "a rule is appended": "-A reyes-accept -j DROP",
    "a rule is replaced": "-R reyes-drop 1 -j ACCEPT",
    "our chain is flushed": "-F reyes-ingress",
    "INPUT is flushed": "-F INPUT",
    "the jump is deleted": "-D INPUT 1",
    "the jump moves": "-D INPUT 1; -A INPUT -j reyes-input",
    "the jump is there twice": "-A INPUT -j reyes-input",
    "a way around": "-I INPUT 1 -s 10.0.0.0/8 -j ACCEPT; -I INPUT 1 -s fd00::/8 -j ACCEPT",
    "another way in": "-A INPUT -p tcp -g reyes-input",
    "the jump has a condition": "-R INPUT 1 -p udp -j reyes-input",
    "a chain that looks like ours": "-N reyes-other; -A reyes-other -j ACCEPT",
    "everything is gone": "-F; -X",
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_rules_that_others_changed_are_repaired(keys: Keys, backend: Backend) -> None:
    with FollowerHost(keys, backend) as host:
        host.apply(0)
        before = ours(host)
        for name, change in CHANGES.items():
            for version in (4, 6):
                host.iptables(
                    *["-A", "INPUT", "-p", "udp", "--dport", "9", "-j", "DROP"], version=version
                )
                spoil(host, change, version)
            assert all(now != right for now, right in zip(ours(host), before, strict=True)), name
            repaired(host)
            assert ours(host) == before, name


@pytest.mark.parametrize("name", BACKENDS)
def test_a_way_of_a_tree_that_others_changed_is_seen(name: Backend) -> None:
    dataplane = compile_policy(policy_with(rules_of("mixed protocols", 200)))
    table = dataplane.tables[0]
    with backend(name), Wire([ADDRESS]) as wire:
        wire.host.call(commit, dataplane, "shared")
        right = wire.host.call(Kernel().read).tables[0]
        assert right.shows(table.identities)
        position, (chain, line) = next(
            (number, (way[1], line))
            for number, line in enumerate(right.rules["reyes-ingress"], start=1)
            if (way := re.search(r"--dport 0:\d+ -g (reyes-\S+)$", line))
        )
        assert "comment" not in line
        for other in (
            "",
            "-p tcp --dport 0:1 ",
            f"-s 203.0.113.9 {line.split(None, 2)[2]}".partition("-g")[0],
        ):
            text = f"*filter\n-R reyes-ingress {position} {other}-g {chain}\nCOMMIT\n"
            wire.run([f"iptables-{name}-restore", "--noflush"], text)
            now = wire.host.call(Kernel().read).tables[0]
            assert not now.shows(table.identities), other


@pytest.mark.parametrize("name", BACKENDS)
def test_a_tree_whose_last_way_ends_at_the_last_port_is_put_in_force(name: Backend) -> None:
    rules = [(tcp(1024 + 3 * number, 65_535), number) for number in range(996)]
    dataplane = compile_policy(policy_with(rules))
    with backend(name), Wire([ADDRESS]) as wire:
        wire.host.call(commit, dataplane, "shared")
        now = wire.host.call(Kernel().read).tables[0]
        assert now.shows(dataplane.tables[0].identities)


def spoil(host: FollowerHost, change: str, version: int) -> None:
    for line in change.split("; "):
        if ("fd00" if version == 4 else "10.0") not in line:
            host.iptables(*line.split(), version=version)


def ours(host: FollowerHost) -> list[list[str]]:
    """Our rules, and the first of INPUT."""
    found = []
    for version in (4, 6):
        rules = host.saved(version)
        first = [rule for rule in rules if rule.startswith("-A INPUT")][:1]
        found.append(first + [rule for rule in rules if "reyes-" in rule])
    return found


def repaired(host: FollowerHost) -> None:
    done = host.run()
    assert done.returncode == 0, done.stdout
    assert "WARNING repaired serial=" in done.stdout
    assert host.in_force() == (host.generation % 3,) * 2
    assert "INFO unchanged" in host.run().stdout


def test_rules_in_another_order_are_repaired(host: FollowerHost) -> None:
    host.apply(0)
    first, second, *_ = [r for r in host.saved() if r.startswith("-A reyes-ingress")]
    text = f"*filter\n{first.replace('-A', '-D', 1)}\n"
    text += second.replace("-A reyes-ingress", "-I reyes-ingress 1", 1)
    host.wire.run(
        [f"iptables-{host.backend}-restore", "--noflush"],
        f"{text}\n{first.replace('-A reyes-ingress', '-I reyes-ingress 3', 1)}\nCOMMIT\n",
    )
    repaired(host)


def members(host: FollowerHost, family: str) -> str:
    (name,) = (name for name in host.sets() if name.startswith(f"{family}:members:"))
    return name


@pytest.mark.parametrize(("family", "there"), [("r4", "10.2.0.10"), ("r6", "fd00:2::10")])
def test_members_that_others_add_or_delete_are_found_by_their_count(
    host: FollowerHost, family: str, there: str
) -> None:
    host.apply(0)
    name = members(host, family)
    host.ipset("del", name, there)
    repaired(host)
    host.ipset("flush", name)
    repaired(host)


def test_a_set_takes_no_more_members_than_it_should_have(host: FollowerHost) -> None:
    host.apply(0)
    done = host.wire.host.run(["ipset", "add", members(host, "r4"), "10.2.0.66"])
    assert done.returncode != 0
    assert "full" in done.stderr


@pytest.mark.parametrize(
    ("family", "there", "other"),
    [("r4", "10.2.0.10", "10.2.0.11"), ("r6", "fd00:2::10", "fd00:2::11")],
)
def test_members_that_others_swap_are_found_once_an_hour(
    host: FollowerHost, family: str, there: str, other: str
) -> None:
    host.apply(0)
    assert host.run().returncode == 0
    name = members(host, family)
    host.ipset("del", name, there)
    host.ipset("add", name, other)
    assert "INFO unchanged" in host.run().stdout
    state = host.remembered()
    state["members_checked_at"] -= MEMBERS_CHECK_SECONDS
    (host.state / "state.json").write_text(json.dumps(state))
    repaired(host)
    assert f"add {name} {there}" in host.ipset("save")


def test_a_set_of_the_way_back_that_is_destroyed_is_no_drift(host: FollowerHost) -> None:
    host.apply(0)
    host.apply(1)
    unneeded = next(
        n for n in host.sets() if not any(n in rule for rule in host.saved(4) + host.saved(6))
    )
    host.ipset("destroy", unneeded)
    assert "INFO unchanged" in host.run().stdout
    assert host.in_force() == (1, 1)


def test_a_set_that_no_rule_needs_is_destroyed(host: FollowerHost) -> None:
    host.apply(0)
    host.ipset("create", "r4:strange:0123456789abcdefghij", "hash:net")
    host.ipset("create", "foreign", "hash:net")
    assert host.run().returncode == 0
    assert "r4:strange:0123456789abcdefghij" not in host.sets()
    assert "foreign" in host.sets()


def test_a_reboot_is_repaired(host: FollowerHost) -> None:
    host.apply(0)
    host.reboot()
    repaired(host)


def test_who_asks_for_details_is_told_what_a_commit_has_changed(host: FollowerHost) -> None:
    host.apply(0)
    host.publish(1)
    said = host.run(command="-v follower").stdout
    assert re.search(r"^DEBUG \+ IPv4 reyes-ingress: sg-.* tcp 1001 from ", said, re.MULTILINE)
    assert re.search(r"^DEBUG - IPv4 reyes-ingress: sg-.* tcp 1000 from ", said, re.MULTILINE)
    assert "DEBUG + r4:" in said
    assert "DEBUG + " not in host.run(command="-v follower").stdout
    host.publish(2)
    assert "DEBUG" not in host.run().stdout
