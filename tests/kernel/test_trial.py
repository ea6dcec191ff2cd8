"""A trial that nobody ends: the follower and its dead man's switch are killed together."""

import signal
from collections.abc import Callable

import pytest

from tests.kernel.followers import FollowerHost
from tests.kernel.generations import UNFILTERED
from tests.kernel.test_boot import boot
from tests.kernel.test_faults import spoil

pytestmark = pytest.mark.kernel

KILL_BOTH = """
{real} "$@"
read -r follower <"$REYES_TEST/pid"
for child in $(cat "/proc/$follower/task/$follower/children"); do
    test "$child" = $$ || kill -KILL "$child"
done
kill -KILL "$follower"
"""


def abandon(host: FollowerHost, generation: int) -> None:
    """Leave a generation's rules in force that nobody has looked at yet."""
    host.publish(generation)
    leave_on_trial(host)
    assert host.in_force() == (generation, generation)


def leave_on_trial(host: FollowerHost) -> None:
    spoil(host, "ip6tables-restore", KILL_BOTH)
    assert host.run().returncode == -signal.SIGKILL
    host.wrap("ip6tables-restore")
    host.settle()


@pytest.fixture
def abandoned(host: FollowerHost) -> FollowerHost:
    host.apply(0)
    host.apply(1)
    abandon(host, 2)
    return host


def test_the_next_run_goes_back_and_tries_them_anew(abandoned: FollowerHost) -> None:
    done = abandoned.run()
    assert done.returncode == 0, done.stdout
    assert "those of the last run did not prove healthy" in done.stdout
    assert "nobody remembers" not in done.stdout
    assert "INFO applied" in done.stdout
    assert abandoned.in_force() == (2, 2)
    assert "INFO unchanged" in abandoned.run().stdout
    abandoned.run(command="rollback")
    assert abandoned.in_force() == (1, 1)


def test_the_rules_before_are_back_though_no_ruleset_is_to_be_had(
    abandoned: FollowerHost,
) -> None:
    (abandoned.directory / "ruleset.gpg").unlink()
    assert abandoned.run().returncode != 0
    assert abandoned.in_force() == (1, 1)


def test_what_is_held_is_looked_after_while_newer_rules_are_on_trial(host: FollowerHost) -> None:
    host.apply(0)
    host.apply(1)
    assert host.run(command="rollback").returncode == 0
    abandon(host, 2)
    (host.directory / "ruleset.gpg").unlink()
    for _ in range(2):
        assert host.run().returncode == 78
        assert host.in_force() == (0, 0)
        for name in host.sets():
            host.ipset("flush", name)


def test_rules_before_that_the_kernel_refuses_can_be_passed_over(abandoned: FollowerHost) -> None:
    trial = abandoned.state / "trial.json"
    trial.write_text(trial.read_text().replace("-m conntrack", "-m nonsense"))
    for _ in range(2):
        done = abandoned.run()
        assert done.returncode == 25, done.stdout
    done = abandoned.run("--force")
    assert done.returncode == 0, done.stdout
    assert "the rules before do not come back: iptables-restore refused" in done.stdout
    assert abandoned.in_force() == (2, 2)
    assert "INFO unchanged" in abandoned.run().stdout


def test_a_rollback_goes_back_to_the_rules_before(abandoned: FollowerHost) -> None:
    assert abandoned.run(command="rollback").returncode == 0
    assert abandoned.in_force() == (1, 1)
    assert "held against" in abandoned.run().stdout
    assert abandoned.in_force() == (1, 1)


def test_a_restarted_host_has_the_rules_before_until_its_first_run(
    abandoned: FollowerHost,
) -> None:
    abandoned.reboot()
    abandoned.configure(nf_conntrack_max=2**31 - 1)  # which no other namespace may set
    code, said = boot(abandoned)
    assert code == 0, said
    assert "cannot raise /proc/sys/net/netfilter/nf_conntrack_max" in said
    assert abandoned.in_force() == (1, 1)
    assert "INFO applied" in abandoned.run().stdout
    assert abandoned.in_force() == (2, 2)


def test_a_restarted_host_has_no_rules_where_the_first_are_not_proved(host: FollowerHost) -> None:
    abandon(host, 0)
    host.reboot()
    code, said = boot(host)
    assert code == 0, said
    assert host.in_force() == (UNFILTERED, UNFILTERED)
    assert "INFO applied" in host.run().stdout


def test_a_host_whose_trial_failed_has_the_rules_before_after_a_restart(
    host: FollowerHost,
) -> None:
    host.apply(0)
    host.publish(1)
    spoil(host, "ip6tables-restore", "exit 4")
    assert host.run().returncode == 25
    host.wrap("ip6tables-restore")
    host.reboot()
    assert boot(host)[0] == 0
    assert host.in_force() == (0, 0)


def test_a_configuration_whose_trial_was_cut_short_can_be_taken_back(host: FollowerHost) -> None:
    host.apply(0)
    host.run()  # reads all members, so that the last run has nothing to do
    before = host.saved()
    host.configure(denied="reject")
    leave_on_trial(host)
    assert host.saved() != before
    host.configure(denied="drop")
    done = host.run()
    assert "INFO unchanged" in done.stdout
    assert host.saved() == before
    assert not (host.state / "trial.json").exists()


def remove(host: FollowerHost) -> None:
    assert host.run("--remove", file=False).returncode == 0


def flush(host: FollowerHost) -> None:
    host.iptables("-F", "reyes-drop")


@pytest.mark.parametrize("change", [remove, flush])
def test_whatever_becomes_of_them_the_next_run_has_its_rules(
    abandoned: FollowerHost, change: Callable[[FollowerHost], None]
) -> None:
    change(abandoned)
    done = abandoned.run()
    assert done.returncode == 0, done.stdout
    assert ("did not prove healthy" in done.stdout) == (change is flush)
    assert abandoned.in_force() == (2, 2)
