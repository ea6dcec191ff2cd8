"""A follower whose ruleset is on S3, as all are: most of its passes find nothing new there."""

import json
import socket
import time

import pytest

from tests.bench.aws_server import AwsServer
from tests.kernel.followers import FollowerHost

pytestmark = pytest.mark.kernel


def run(host: FollowerHost, store: AwsServer) -> tuple[int, str]:
    done = host.run(file=False, environment=store.environment())
    return done.returncode, done.stdout


def settle(host: FollowerHost, store: AwsServer) -> None:
    """Apply the first generation, and let the next pass read the members back."""
    host.publish_to(store, 0)
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


def test_a_name_that_nobody_resolves_ends_with_the_deadline(
    host: FollowerHost, store: AwsServer
) -> None:
    """Nothing interrupts the look for a name, which takes as long as the resolver is patient."""
    settle(host, store)
    silent = host.wire.host.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.53", 53))
    configuration = host.directory / "resolv.conf"
    configuration.write_text("nameserver 127.0.0.53\noptions timeout:25 attempts:1\n")
    host.mount("--bind", str(configuration), "/etc/resolv.conf")
    host.configure(deadline=2)
    unknown = {**store.environment(), "AWS_ENDPOINT_URL": "http://s3.example.test:1"}
    started = time.monotonic()
    done = host.run(file=False, environment=unknown)
    silent.close()
    assert done.returncode == 75, done.stdout
    assert "did not come within 2 s" in done.stdout
    assert "S3 has not answered: s3://" in done.stdout
    assert time.monotonic() - started < 20
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
    host.publish_to(store, 1)
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


def applied_rules(host: FollowerHost) -> tuple[str, int]:
    status = json.loads((host.state / "status.json").read_bytes())
    return status["run"]["outcome"], status["applied"]["rules"]


def test_the_same_content_published_again_is_accepted_and_changes_nothing(
    host: FollowerHost, store: AwsServer
) -> None:
    settle(host, store)
    before, serial = host.kernel(), host.remembered()["accepted"]["serial"]
    _, rules = applied_rules(host)
    host.publish_to(store, 0)
    code, said = run(host, store)
    accepted = host.remembered()["accepted"]["serial"]
    assert (code, said.count("\n")) == (0, 1)
    assert f"INFO unchanged serial={accepted}, in" in said
    assert host.kernel() == before
    assert accepted > serial
    assert applied_rules(host) == ("unchanged", rules)


def test_rules_that_others_changed_are_repaired_by_the_same_content_again(
    host: FollowerHost, store: AwsServer
) -> None:
    settle(host, store)
    before, (_, rules) = host.kernel(), applied_rules(host)
    host.iptables("-F", "reyes-ingress", version=4)
    host.publish_to(store, 0)
    code, said = run(host, store)
    assert code == 0
    assert "WARNING repaired what is in force" in said
    assert host.kernel() == before
    assert applied_rules(host) == ("repaired", rules)


def test_members_that_are_due_go_the_whole_way_with_the_same_content_again(
    host: FollowerHost, store: AwsServer
) -> None:
    settle(host, store)
    (host.state / "status.json").unlink()
    remembered = host.remembered()
    text = json.dumps({**remembered, "members_checked_at": 1, "identity": None})
    (host.state / "state.json").write_text(text)
    host.publish_to(store, 0)
    code, said = run(host, store)
    assert (code, "INFO unchanged serial=" in said) == (0, True)
    assert applied_rules(host)[1] > 0
    assert host.remembered()["identity"] == remembered["identity"]
    assert host.remembered()["members_checked_at"] > 1
