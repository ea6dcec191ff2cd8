"""Text for people: what others say and are called, made harmless, and time in words."""

from collections.abc import Sequence
from datetime import UTC, datetime

_MAX_LINE = 400
"""Characters of what others say: why AWS denies access takes some 300."""

_DELIMITERS = frozenset("(),'\"")
"""What stands around names in our own messages."""


def one_line(text: str) -> str:
    """Put what others say on one short line of printable characters, lest it pass for ours."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(printable.split())
    return line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE - 3]}..."


def quoted(name: str) -> str:
    """Quote a name where it could harm a terminal, or where one would not see its end."""
    plain = name.isprintable() and name.strip() == name != "" and _DELIMITERS.isdisjoint(name)
    return name if plain else repr(name)


def first_of(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """Write so many items in one line, and the number of the others."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def moment_text(seconds: int) -> str:
    """Write seconds since the epoch as UTC, or as a bare number beyond the year 9999."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def duration_text(seconds: int) -> str:
    """Write a length of time in the largest unit that fits twice: `12 minutes`, `90 seconds`."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def age_text(then: int, now: int) -> str:
    """Say how old something is; a clock that went back makes nothing younger than new."""
    return duration_text(max(0, now - then))
