"""Fixtures of several integration tests."""

from collections.abc import Iterator

import pytest

from tests.desk import Desk
from tests.gnupg_home import gnupg_home


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with gnupg_home() as home:
        yield Desk(home, tmp_path_factory.mktemp("desk"))


@pytest.fixture
def aws_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that AWS does not know, nothing of this machine's own, and few tries."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "OWN",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_MAX_ATTEMPTS": "2",
    }.items():
        monkeypatch.setenv(name, value)
