"""Options of the whole suite."""

import pytest
from hypothesis import Phase, settings

settings.register_profile("unshrunk", phases=[Phase.generate])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write tests/golden anew from what the code says now; read the difference",
    )
