"""Who a host takes itself for before its network is up."""

import pytest

from reyes.cli import identity
from reyes.cli.identity import remembered_host
from reyes.errors import ConfigError
from reyes.state import Identity
from tests.leaders import configuration


def remembered(machine: str) -> Identity:
    return Identity(instance_id="i-0000000b", region="us-west-2", machine=machine)


def test_the_same_machine_is_the_same_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "machine_id", lambda: "this one")
    assert remembered_host(configuration(), remembered("this one")).instance_id == "i-0000000b"


@pytest.mark.parametrize(("then", "now"), [("another", "this one"), ("another", ""), ("", "")])
def test_another_machine_and_one_without_an_id_are_not(
    monkeypatch: pytest.MonkeyPatch, then: str, now: str
) -> None:
    monkeypatch.setattr(identity, "machine_id", lambda: now)
    with pytest.raises(ConfigError, match="who this host is cannot be told"):
        remembered_host(configuration(), remembered(then))
