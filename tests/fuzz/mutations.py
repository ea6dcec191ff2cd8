"""Hypothesis strategies that spoil what was good: bytes, and the values of JSON."""

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

WORDS = (
    "",
    "web",
    "a b",
    "'",
    '"',
    'a" -j ACCEPT "',
    "$(reboot)`id`",
    "back\\slash",
    "--match-set x src",
    "-j ACCEPT",
    "two\nlines",
    "COMMIT\n",
    "\r",
    "\t",
    "\x0b\x0c\x1c\x85\u2028",
    "\0",
    "\x1b[2J",
    "%s{0}",
    "../../etc/passwd",
    "\N{FIRE}",
    "\u202e\u0301",
    "\N{FULLWIDTH DIGIT ONE}",
    "x" * 255,
    "\N{FIRE}" * 255,
    "0.0.0.0/0",
    "::/0",
    "::ffff:10.0.0.1",
    "::ffff:0:0/96",
    "fe80::1%eth0",
    "10.0.0.1/8",
    "10.0.0.0/255.0.0.0",
    "10.0.0.0/0.255.255.255",
    "10.0.0.1/32",
    "FD00::1",
    "fd00:0::1",
    "010.0.0.1",
    "sg-0000000a",
    "sg-0000000a\n",
    "vpc-0a1b2c3d",
    "default",
    "deleted",
)
"""Words that mean something to a shell, a parser or a terminal."""

NUMBERS = (-(2**63), -1, 0, 1, 255, 256, 65_535, 65_536, 2**31, 2**62, 2**63, 2**64, 10**400, 0.5)


def texts() -> st.SearchStrategy[str]:
    """Words, and anything else that UTF-8 can write."""
    return st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8"), max_size=40)


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.sampled_from(NUMBERS) | texts()
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3),
        max_leaves=4,
    )


@st.composite
def spoilt_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after up to four cuts, repetitions, flips and insertions, or any bytes."""
    seed = draw(st.sampled_from([*seeds, b""]))
    if not seed:
        return draw(st.binary(max_size=200))
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 1, 2, 8, len(data)]))
        piece = bytes(data[start : start + length])
        match draw(st.sampled_from(["flip", "cut", "repeat", "insert", "replace", "end"])):
            case "flip" if piece:
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[start : start + length]
            case "repeat":
                data[start:start] = piece
            case "end":
                del data[start:]
            case "replace":
                data[start : start + length] = draw(_pieces())
            case _:
                data[start:start] = draw(_pieces())
    return bytes(data)


def _pieces() -> st.SearchStrategy[bytes]:
    return texts().map(str.encode) | st.binary(max_size=8)


@st.composite
def spoilt_json(draw: st.DrawFn, seed: bytes) -> bytes:
    """A JSON text with one to three values changed, as compact as a leader writes it."""
    root = copy.deepcopy(json.loads(seed))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(root))
        if places:
            _spoil(draw, *draw(st.sampled_from(places)))
    return json.dumps(root, separators=(",", ":"), ensure_ascii=False).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    match value:
        case dict():
            entries: Any = value.items()
        case list():
            entries = enumerate(value)
        case _:
            return
    for key, inner in list(entries):
        yield value, key
        yield from _places(inner)


def _spoil(draw: st.DrawFn, holder: Any, key: Any) -> None:
    """Change one value: most often to another of its type, so that what follows is reached."""
    value = holder[key]
    match draw(st.sampled_from(["alike", "alike", "alike", "other", "gone", "twice"])), value:
        case "alike", str():
            holder[key] = draw(texts())
        case "alike", int():
            holder[key] = draw(st.sampled_from(NUMBERS) | st.integers(0, 70_000))
        case "alike", list() if value:
            holder[key] = draw(st.lists(st.sampled_from(value), max_size=4))
        case "gone", _:
            del holder[key]
        case "twice", _ if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        case _:
            holder[key] = draw(json_values())
