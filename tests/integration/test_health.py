"""Probes and the ruleset's source, before and after a commit."""

import socket
import time
from collections.abc import Iterator

import pytest

from reyes.adapters import guard, health
from reyes.adapters.health import Health
from reyes.config import FollowerConfig
from reyes.errors import ConfigError, SourceError, UnreachableError


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that answers one alone: its queue is full then."""
    monkeypatch.setattr(health, "PROBE_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as opened:
        yield opened


def address(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_host_that_reaches_all_is_healthy_at_once(server: socket.socket) -> None:
    before = time.monotonic()
    assert Health([address(server)], lambda: None).trouble(60) is None
    assert time.monotonic() - before < 30


def test_a_host_that_cannot_even_ask_the_store_is_in_trouble() -> None:
    def refuse() -> None:
        raise ConfigError("the system refuses another thread")

    assert "refuses another thread" in (Health([], refuse).trouble(0.1) or "")


def test_a_probe_that_answered_before_and_does_not_now_is_trouble(server: socket.socket) -> None:
    looking = Health([address(server)], None)
    probe = address(server)
    server.close()
    assert looking.trouble(0.1) == f"the probe {probe} does not answer any more"


def test_a_probe_that_failed_before_is_no_trouble(server: socket.socket) -> None:
    probe = address(server)
    server.close()
    assert Health([probe], None).trouble(0.1) is None


def test_many_probes_that_do_not_answer_take_as_long_as_one(busy: socket.socket) -> None:
    before = time.monotonic()
    with socket.create_connection(busy.getsockname()):
        assert Health([address(busy)] * 30, None).trouble(0.1) is None
    assert time.monotonic() - before < 15


def test_the_first_probe_that_does_not_answer_is_named(
    busy: socket.socket, server: socket.socket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as well:
        probes = [address(well), address(busy), address(server)]
        looking = Health(probes, None)
        server.close()  # it refuses at once
        assert looking.trouble(0.1) == f"the probe {probes[1]} does not answer any more"


def test_an_ipv6_probe_is_written_in_brackets() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as opened:
        probe = f"[::1]:{opened.getsockname()[1]}"
        looking = Health([probe], None)
        assert looking.trouble(0.1) is None
    assert looking.trouble(0.1) == f"the probe {probe} does not answer any more"


def test_a_no_blames_the_rules_however_the_host_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        settings = FollowerConfig(probes=(address(opened),))
        asking = guard.CommitGuard(settings, None, confirm_seconds=1)
        monkeypatch.setattr(guard, "_ask", lambda _: "it was not confirmed")
        assert asking.trouble() == "it was not confirmed"
    assert asking.is_well()


def test_nobody_is_asked_whether_he_agrees_while_the_host_is_not_well(
    monkeypatch: pytest.MonkeyPatch, server: socket.socket
) -> None:
    settings = FollowerConfig(probes=(address(server),), confirm_timeout=1)
    asking = guard.CommitGuard(settings, None, confirm_seconds=1)
    monkeypatch.setattr(guard, "_ask", lambda _: None)
    assert asking.trouble() is None
    server.close()
    assert asking.trouble() == f"the probe {settings.probes[0]} does not answer any more"


@pytest.mark.parametrize(("asked", "seconds"), [(None, 67), (300, 367)])
def test_the_switch_waits_for_the_host_for_people_and_for_a_command(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, seconds: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(guard, "armed", lambda _, bound: waits.append(bound))
    guard.CommitGuard(FollowerConfig(confirm_timeout=7), None, asked).armed(lambda: None)
    assert waits == [seconds]


def test_what_fails_for_a_moment_is_asked_again() -> None:
    answers = iter([UnreachableError("not yet"), UnreachableError("not yet"), None])

    def ask() -> None:
        if error := next(answers):
            raise error

    assert Health([], ask).trouble(60) is None


def test_a_source_to_which_no_way_leads_is_trouble() -> None:
    def ask() -> None:
        raise UnreachableError("s3 does not answer")

    assert Health([], ask).trouble(0.1) == (
        "the ruleset's source is not reached any more: s3 does not answer"
    )


def test_a_source_that_answers_with_an_error_is_reached() -> None:
    def ask() -> None:
        raise SourceError("403 Forbidden")

    assert Health([], ask).trouble(0.1) is None


def test_a_source_that_hangs_is_not_waited_for_longer_than_that() -> None:
    before = time.monotonic()
    trouble = Health([], lambda: time.sleep(60)).trouble(0.2)
    assert trouble
    assert "is not reached any more" in trouble
    assert time.monotonic() - before < 30


def test_a_bug_is_no_trouble_but_a_bug() -> None:
    def ask() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Health([], ask).trouble(0.1)
