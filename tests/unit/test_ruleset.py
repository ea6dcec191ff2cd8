"""The document has one text, and every other text is refused."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reyes.ruleset import FORMAT_VERSION, DocumentError, count, decode, encode
from tests import strategies
from tests.worlds import document, header_for, small_world

NOW = 1_795_000_000
SPECIFICATION = Path(__file__).parents[2] / "docs" / "ruleset-format.md"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_encoded_is_decoded(data: st.DataObject) -> None:
    content = data.draw(strategies.contents())
    header = data.draw(strategies.headers(content))
    text = encode(header, content)
    ruleset = decode(text)
    assert (ruleset.header, ruleset.content) == (header, content)
    assert encode(ruleset.header, ruleset.content) == text


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(document(NOW)) - 1), st.integers(1, 255))
def test_text_with_one_byte_changed_is_refused_or_says_so(position: int, difference: int) -> None:
    text = bytearray(document(NOW))
    text[position] ^= difference
    try:
        ruleset = decode(bytes(text))
    except DocumentError:
        return
    assert encode(ruleset.header, ruleset.content) == text
    assert ruleset != decode(document(NOW))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(document(NOW)) - 1))
def test_text_that_was_cut_is_refused(length: int) -> None:
    with pytest.raises(DocumentError):
        decode(document(NOW)[:length])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_other_bytes_are_refused(text: bytes) -> None:
    with pytest.raises(DocumentError):
        decode(text)


def recoded(**changes: Any) -> bytes:
    raw = {**json.loads(document(NOW)), **changes}
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False).encode()


def test_python_json_writes_the_canonical_text_too() -> None:
    assert recoded() == document(NOW)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not a ruleset"),
        (b"null", "not a ruleset"),
        (b"[" * 200_000, "not a ruleset"),
        (b'{"format_version":3}', "not a ruleset"),
        (b'{"format_version":"3"}', "not a ruleset"),
        (b"\xff" + document(NOW), "not a ruleset"),
        (b"\xef\xbb\xbf" + document(NOW), "not a ruleset"),
        (document(NOW) + b" ", "canonical"),
        (document(NOW) + document(NOW), "not a ruleset"),
        (document(NOW).replace(b",", b", ", 1), "canonical"),
        (document(NOW).replace(b"us-west-2", b"us\\u002dwest-2"), "canonical"),
        (
            document(NOW).replace(b'"environment"', b'"environment":"staging","environment"', 1),
            "canonical",
        ),
        (document(NOW).replace(b'"serial":', b'"serial":1.0e0,"serial":', 1), "not a ruleset"),
        (recoded(extra=1), "extra"),
        (recoded(format_version=2), "format_version is 2"),
        (recoded(format_version=FORMAT_VERSION + 1), "format_version is 4"),
        (recoded(format_version=True), "not a ruleset"),
        (recoded(serial=True), "not a ruleset"),
        (recoded(serial=1.5), "not a ruleset"),
        (recoded(serial=-1), "not a ruleset"),
        (recoded(serial=2**63), "not a ruleset"),
        (recoded(serial=float("nan")), "not a ruleset"),
        (document(NOW).replace(b'"not_after":', b'"not_after":1e400,"x":'), "not a ruleset"),
        (recoded(content_sha256="0" * 64), "content_sha256"),
        (recoded(counts=None), "not a ruleset"),
        (recoded(content={}), "not a ruleset"),
    ],
)
def test_text_with_a_second_meaning_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(reason)):
        decode(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sg-0000000a", "sg-000a"),
        ("sg-0000000a", "sg-0000000A"),
        ("sg-0000000a", "sg-0000000a -j ACCEPT"),
        ('"groups":["sg-0000000a"', '"groups":["sg-0000000a\\n"'),
        ('"instance":"i-0000000b"', '"instance":"i-0000000b\\n"'),
        ("eni-0000000a", "eni-"),
        ("vpc-0a1b2c3d", "vpc-0a1b2c3d\\nx"),
        ('"id":"eni-0000000e","vpc":"vpc-', '"id":"eni-0000000e","vpc":"vpn-'),
        ("pl-0000000a", "pl-zzzzzzzz"),
        ("123456789012", "12345678901"),
        ("us-west-2", "us_west_2"),
        ('"first":443', '"first":65536'),
        ('"first":443', '"first":-1'),
        ('"type":8', '"type":256'),
        ('"kind":"all"', '"kind":"none"'),
        ('"protocol":"tcp"', '"protocol":"sctp"'),
    ],
)
def test_values_that_aws_has_not_are_refused(old: str, new: str) -> None:
    raw = document(NOW).decode()
    assert old in raw
    content = json.dumps(
        json.loads(raw.replace(old, new))["content"], separators=(",", ":"), ensure_ascii=False
    )
    digest = hashlib.sha256(content.encode()).hexdigest()
    with pytest.raises(DocumentError, match=r"not a ruleset: (Expected|Invalid|an interface)"):
        decode(recoded(content=json.loads(content), content_sha256=digest))


def test_an_identifier_that_is_there_twice_is_refused() -> None:
    world = small_world()
    eu, west = world.regions
    doubled = {
        "region": (eu, eu),
        "vpc": (replace(eu, vpcs=eu.vpcs * 2),),
        "group": (replace(west, groups=west.groups * 2),),
        "interface": (replace(west, interfaces=west.interfaces * 2),),
        "prefix list": (replace(west, prefix_lists=west.prefix_lists * 2),),
    }
    for what, regions in doubled.items():
        content = replace(world, regions=regions)
        with pytest.raises(DocumentError, match=f"{what} .* is there twice"):
            decode(encode(header_for(content, NOW), content))


def test_content_digest_does_not_change_when_only_time_moves() -> None:
    early, late = decode(document(NOW)), decode(document(NOW + 300))
    assert early.content_sha256 == late.content_sha256
    other = decode(document(NOW, replace(small_world(), group_matching="id")))
    assert other.content_sha256 != early.content_sha256


def test_counts_of_the_small_world() -> None:
    counts = count(small_world(), sources=2)
    assert (counts.sources, counts.vpcs, counts.groups, counts.rules) == (2, 2, 3, 4)
    assert (counts.interfaces, counts.instances, counts.members) == (4, 3, 6)


def test_instances_are_counted_once_whatever_their_interfaces() -> None:
    world = small_world()
    eu = world.regions[0]
    second = replace(eu.interfaces[0], id="eni-0000000f", device=1)
    content = replace(world, regions=(replace(eu, interfaces=(*eu.interfaces, second)),))
    assert count(content, sources=1).instances == 1


def worked_example() -> dict[str, Any]:
    fenced = re.search(r"```json\n(\{.*?\n)```", SPECIFICATION.read_text(), re.DOTALL)
    assert fenced
    raw = json.loads(fenced[1])
    assert isinstance(raw, dict)
    return raw


def test_the_specifications_example_is_a_document() -> None:
    text = json.dumps(worked_example(), separators=(",", ":"), ensure_ascii=False).encode()
    ruleset = decode(text)
    assert ruleset.header.counts == count(ruleset.content, ruleset.header.counts.sources)


def test_the_specification_names_every_field() -> None:
    text = SPECIFICATION.read_text()
    names: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            names.update(value)
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    collect(worked_example())
    collect(json.loads(document(NOW)))
    assert [name for name in sorted(names) if f"| `{name}` |" not in text] == []
