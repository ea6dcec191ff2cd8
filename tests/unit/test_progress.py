import io
import logging

import pytest

from reyes.cli.progress import progress_to


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_moves_and_is_cleared() -> None:
    terminal = Terminal()

    with progress_to(terminal) as progress:
        progress("us-west-2", "DescribeVpcs", 2)
        progress("us-west-2", "DescribeInstances", 1000)
        progress("us-west-2", "DescribeInstances", 2000)

    clear = "\x1b[K"
    assert terminal.getvalue().split("\r") == [
        "",
        f"read 2 items, now DescribeVpcs in us-west-2{clear}",
        f"read 1002 items, now DescribeInstances in us-west-2{clear}",
        f"read 2002 items, now DescribeInstances in us-west-2{clear}",
        clear,
    ]


def test_the_line_is_cleared_before_an_error_is_told() -> None:
    terminal = Terminal()

    with pytest.raises(KeyboardInterrupt), progress_to(terminal):
        raise KeyboardInterrupt

    assert terminal.getvalue() == "\r\x1b[K"


def test_elsewhere_only_the_pages_after_the_first_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("reyes"), "propagate", True)
    caplog.set_level(logging.INFO, logger="reyes")
    stream = io.StringIO()

    with progress_to(stream) as progress:
        progress("us-west-2", "DescribeInstances", 1000)
        progress("eu-west-1", "DescribeInstances", 1000)
        progress("us-west-2", "DescribeInstances", 2000)

    assert stream.getvalue() == ""
    assert caplog.messages == ["us-west-2: DescribeInstances: 2000 items so far"]
