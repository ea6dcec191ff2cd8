"""A follower whose ruleset is on S3, as all are: most of its passes find nothing new there."""

from collections.abc import Iterator

import pytest

from tests.bench.aws_server import AwsServer, aws_server
from tests.kernel.followers import FollowerHost

pytestmark = pytest.mark.kernel


@pytest.fixture
def store(host: FollowerHost) -> Iterator[AwsServer]:
    with aws_server(host.wire.host) as server:
        yield server


def put(host: FollowerHost, store: AwsServer, generation: int) -> None:
    host.publish(generation)
    store.blob = (host.directory / "ruleset.gpg").read_bytes()


def run(host: FollowerHost, store: AwsServer) -> tuple[int, str]:
    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    done = host.run(file=False, environment={**store.environment(), **keys})
    return done.returncode, done.stdout


def settle(host: FollowerHost, store: AwsServer) -> None:
    """Apply the first generation, and let the next pass read the members back."""
    put(host, store, 0)
    for word in ("applied", "unchanged"):
        code, said = run(host, store)
        assert code == 0, said
        assert f"INFO {word} serial=" in said


def test_a_pass_that_finds_nothing_new_changes_nothing(
    host: FollowerHost, store: AwsServer
) -> None:
    settle(host, store)
    before = host.kernel()
    code, said = run(host, store)
    assert (code, said.count("\n")) == (0, 1)
    assert "INFO unchanged, in" in said
    assert host.kernel() == before
    assert host.in_force() == (0, 0)


def test_connection_tracking_gets_its_room_where_nothing_is_new(
    host: FollowerHost, store: AwsServer
) -> None:
    """Only the first network namespace may have it: all others are told that they may not."""
    settle(host, store)
    host.configure(nf_conntrack_max=2**31 - 1)
    code, said = run(host, store)
    assert code == 0
    assert "cannot raise /proc/sys/net/netfilter/nf_conntrack_max to 2147483647" in said
    assert "INFO unchanged, in" in said


def test_what_somebody_flushed_comes_back_where_nothing_is_new(
    host: FollowerHost, store: AwsServer
) -> None:
    settle(host, store)
    before = host.kernel()
    host.iptables("-F")
    code, said = run(host, store)
    assert code == 0
    assert "WARNING repaired serial=" in said
    assert host.kernel() == before


def test_new_rules_come_from_the_store_and_stay_when_it_is_gone(
    host: FollowerHost, store: AwsServer
) -> None:
    settle(host, store)
    put(host, store, 1)
    code, said = run(host, store)
    assert code == 0
    assert "INFO applied serial=" in said
    assert host.in_force() == (1, 1)
    store.blob = None
    host.iptables("-F")
    code, said = run(host, store)
    assert code == 75
    assert "repaired what is in force" in said
    assert host.in_force() == (1, 1)


def test_the_same_content_published_again_is_accepted_and_changes_nothing(
    host: FollowerHost, store: AwsServer
) -> None:
    settle(host, store)
    before, serial = host.kernel(), host.remembered()["accepted"]["serial"]
    put(host, store, 0)
    code, said = run(host, store)
    assert (code, said.count("\n")) == (0, 1)
    assert "INFO unchanged, in" in said
    assert host.kernel() == before
    assert host.remembered()["accepted"]["serial"] > serial


def test_rules_that_others_changed_are_repaired_by_the_same_content_again(
    host: FollowerHost, store: AwsServer
) -> None:
    settle(host, store)
    before = host.kernel()
    host.iptables("-F", "reyes-ingress", version=4)
    put(host, store, 0)
    code, said = run(host, store)
    assert code == 0
    assert "INFO repaired, in" in said
    assert host.kernel() == before
