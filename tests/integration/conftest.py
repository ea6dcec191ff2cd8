"""Fixtures of several integration tests."""

from collections.abc import Iterator

import pytest

from tests.desk import Desk
from tests.gnupg_home import gnupg_home


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with gnupg_home() as home:
        yield Desk(home, tmp_path_factory.mktemp("desk"))
