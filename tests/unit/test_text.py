import pytest

from reyes.text import duration_text, moment_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (119, "119 seconds"),
        (750, "12 minutes"),
        (7200, "2 hours"),
        (604_800, "7 days"),
    ],
)
def test_durations_are_written_for_people(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


def test_moments_are_written_in_utc_or_as_numbers() -> None:
    assert moment_text(1_795_000_000) == "2026-11-18T11:06:40Z"
    for beyond in (253_402_300_800, 2**62, 2**63):
        assert moment_text(beyond) == str(beyond)
