"""Rules that somebody flushes while no new ruleset is to be had, or just before one arrives."""

from collections.abc import Callable

import pytest

from tests.kernel.followers import FollowerHost

pytestmark = pytest.mark.kernel


def gone(host: FollowerHost) -> None:
    (host.directory / "ruleset.gpg").unlink()


def garbled(host: FollowerHost) -> None:
    (host.directory / "ruleset.gpg").write_bytes(b"\x90garbage")


def expired(host: FollowerHost) -> None:
    serial = host.remembered()["accepted"]["serial"] + 1
    host.publish(1, ahead=-7200, serial=serial)


OUTAGES: dict[str, tuple[Callable[[FollowerHost], None], int]] = {
    "no ruleset": (gone, 78),
    "garbage": (garbled, 21),
    "an expired ruleset": (expired, 20),
}


@pytest.mark.parametrize(("outage", "code"), OUTAGES.values(), ids=OUTAGES)
def test_what_is_in_force_is_looked_after_all_the_same(
    host: FollowerHost, outage: Callable[[FollowerHost], None], code: int
) -> None:
    host.apply(0)
    outage(host)
    host.iptables("-F")
    host.iptables("-F", version=6)
    for repaired in (True, False):
        done = host.run()
        assert done.returncode == code, done.stdout
        assert host.in_force() == (0, 0)
        assert ("repaired what is in force" in done.stdout) is repaired


def test_a_disabled_host_is_left_alone_all_the_same(host: FollowerHost) -> None:
    host.apply(0)
    host.iptables("-F")
    (host.directory / "disabled").touch()
    gone(host)
    assert host.run().returncode == 0
    assert "reyes-ingress" not in " ".join(host.saved(4)[-1:])


def test_the_way_back_is_no_table_that_somebody_flushed(host: FollowerHost) -> None:
    host.apply(0)
    host.iptables("-F")
    host.iptables("-F", version=6)
    host.apply(1)
    assert host.run(command="rollback").returncode == 0
    assert host.in_force() == (0, 0)
