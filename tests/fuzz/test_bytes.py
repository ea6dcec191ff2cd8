"""Whatever bytes come from outside: a value, or the error that the docstring names."""

import json
import re
import socket
from ipaddress import IPv6Address, IPv6Network
from itertools import product

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reyes.config import MAX_CONFIG_CHARACTERS, parse_config
from reyes.errors import ConfigError
from reyes.net import Family, canonical
from reyes.netfilter.live import parse_set_members, parse_table
from reyes.ruleset import decode
from tests.configurations import CONTRACT, MINIMAL
from tests.fuzz.mutations import WORDS, json_values, spoilt_bytes, spoilt_json
from tests.fuzz.targets import CONTENT, SET, TARGETS, configuration, forge, forged, memory
from tests.worlds import small_world

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
EXAMPLES = {"envelope": 80, "published": 80}


@pytest.mark.parametrize("name", TARGETS)
def test_spoilt_bytes(name: str) -> None:
    target = TARGETS[name]

    @settings(QUICK, max_examples=EXAMPLES.get(name, 150))
    @given(spoilt_bytes(target.seeds()))
    def check(data: bytes) -> None:
        target.check(data)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_emptiness(name: str) -> None:
    for seed in (*TARGETS[name].seeds(), b""):
        TARGETS[name].check(seed)


def test_a_forged_document_is_read() -> None:
    assert decode(forge(CONTENT)).content == small_world()


def test_addresses_of_all_kinds() -> None:
    """Every address in a document takes the place of every other, and of words like addresses."""
    addresses = sorted(set(re.findall(rb'"([0-9a-f.:/]*[.:][0-9a-f.:/]+)"', CONTENT)))
    assert len(addresses) == 12
    words = [word.encode() for word in WORDS if re.search("[0-9][.:]|:[0-9]", word)]
    for address, word in product(addresses, [*addresses, *words]):
        forged(CONTENT.replace(b'"%s"' % address, b'"%s"' % word))


@settings(QUICK, max_examples=250)
@given(spoilt_json(CONTENT))
def test_spoilt_contents(content: bytes) -> None:
    forged(content)


CONFIGURATIONS = [json.dumps(yaml.safe_load(text)).encode() for text in (CONTRACT, MINIMAL)]


@settings(QUICK, max_examples=100)
@given(st.sampled_from(CONFIGURATIONS).flatmap(spoilt_json))
def test_spoilt_configurations(text: bytes) -> None:
    configuration(text)


@settings(QUICK, max_examples=100)
@given(json_values())
def test_any_yaml_value(value: object) -> None:
    configuration(yaml.safe_dump({"environment": value}, allow_unicode=True).encode())


def laughs(form: str) -> str:
    """The billion laughs: each of nine lines is ten times the one before."""
    lines = ["a0: &a0 {x: y}"]
    for n in range(9):
        again = ", ".join([f"*a{n}"] * 10)
        lines.append(f"a{n + 1}: &a{n + 1} {form % again}")
    return "\n".join([*lines, "environment: *a9"])


@pytest.mark.parametrize("form", ["[%s]", "{<<: [%s]}"])
def test_aliases_are_refused_and_not_expanded(form: str) -> None:
    with pytest.raises(ConfigError, match="aliases are not supported"):
        parse_config(laughs(form), "c")


@pytest.mark.parametrize(
    "value",
    [
        "!!int ''",
        "!!bool maybe",
        "!!timestamp never",
        "!!float ''",
        "!!binary '\N{FIRE}'",
        "2026-02-30",
        "2026-11-20T25:00:00Z",
        f"0x{'f' * 5000}",
        "9" * 5000,
        f"1{':1' * 5000}",
        f"[0x{'f' * 5000}]",
        "[" * 5000,
        "{a: " * 5000,
        "- " * 5000,
        '"\\0"',
        '"\\ud800"',
        "\0",
        "&a [*a]",
        "!!python/object/apply:os.system [id]",
        ".nan",
    ],
    ids=lambda value: ascii(value[:20]),
)
def test_yaml_of_all_kinds_is_refused(value: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(f"{MINIMAL.replace('environment: production', '')}environment: {value}", "c")


@pytest.mark.parametrize("character", ["\\0", "\\n", "\\x7f", "\\ud800"])
@pytest.mark.parametrize(
    "line",
    [
        'follower: {{state_directory: "/var/{0}"}}',
        'leader: {{sources: [{{region: us-west-2}}], excluded_group_names: ["a{0}"]}}',
        'leader: {{sources: [{{region: us-west-2}}], group_matching: "tag:a{0}"}}',
    ],
)
def test_texts_that_no_path_or_name_holds_are_refused(line: str, character: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        parse_config(MINIMAL + line.format(character), "c")


def test_ten_thousand_unknown_keys_make_a_short_message() -> None:
    text = MINIMAL + "".join(f"\nstray{number}: 1" for number in range(10_000))
    with pytest.raises(ConfigError, match="stray19: unknown key; and 9980 more") as caught:
        parse_config(text, "c")
    assert len(caught.value.message) < 1000


def test_a_key_of_any_length_makes_a_short_message() -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        parse_config(f'? {"k" * 100_000}\n: 1\n? "\\ud800"\n: 2\n', "c")
    assert len(caught.value.message.encode()) < 1000


def test_a_configuration_has_an_end() -> None:
    with pytest.raises(ConfigError, match="more than"):
        parse_config("#" * (MAX_CONFIG_CHARACTERS + 1), "c")


@pytest.mark.parametrize(
    "text",
    [
        b'{"x":' + b"[" * 200_000,
        b'{"etag":"\\ud800"}',
        b'{"etag":"\xff"}',
        b'{"not_after":' + b"9" * 5000 + b"}",
        b'{"not_after":1e999}',
        b'{"accepted":{}}',
        b"[]",
        b"\0" * 4096,
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_a_state_of_all_kinds_is_set_aside(text: bytes) -> None:
    memory(text)


@pytest.mark.parametrize("line", [":INPUT", ":", "-A "])
def test_a_table_with_half_a_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="unpack"):
        parse_table(f"*filter\n{line}\n", Family.V4)


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"])
def test_a_comment_of_others_does_not_end_a_line(end: str) -> None:
    line = f'-A INPUT -m comment --comment "a{end}-A reyes-input -j DROP{end}" -j ACCEPT'
    table = parse_table(f"*filter\n:INPUT ACCEPT [0:0]\n{line}\nCOMMIT\n", Family.V4)
    assert table.rules == {"INPUT": (line,)}


@given(st.ip_addresses(v=6))
def test_members_are_read_as_they_were_written(address: IPv6Address) -> None:
    shown = socket.inet_ntop(socket.AF_INET6, address.packed)  # what ipset prints
    network = canonical(IPv6Network(address))
    assert parse_set_members(f"add {SET} {shown}\n") == {SET: (network,)}


@pytest.mark.parametrize("shown", ["::1.2.3.4", "::ffff:10.0.0.0/104", "::ffff:0.0.0.0/96"])
def test_dotted_members_are_read_as_they_were_written(shown: str) -> None:
    network = canonical(IPv6Network(shown))
    assert "." not in network
    assert parse_set_members(f"add {SET} {shown}\n") == {SET: (network,)}
