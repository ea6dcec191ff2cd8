"""Options of the whole suite."""

import gc
import logging
import os
import re
import signal
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings

settings.register_profile("unshrunk", phases=[Phase.generate])

FOREIGN = re.compile(r"(AWS_|GNUPGHOME$|NOTIFY_SOCKET$|WATCHDOG_)|\w+_proxy$", re.IGNORECASE)
"""Variables of whoever runs the tests that would change what is tested."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write tests/golden anew from what the code says now; read the difference",
    )


def pytest_configure() -> None:
    # Under nohup, or in the background of a script, one of them is ignored, and whatever the tests
    # start would inherit that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in filter(FOREIGN.match, list(os.environ)):
        del os.environ[name]


@pytest.fixture(autouse=True)
def _own_process() -> Iterator[None]:
    """Leave logger and collector as they were: commands that run in this process set them."""
    logger = logging.getLogger("reyes")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before[0], before[1], before[2]
    gc.enable()
