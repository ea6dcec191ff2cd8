"""The configuration: its contract, its defaults, and everything impossible in it."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
import yaml
from msgspec import Struct

from reyes.config import (
    Config,
    FailsafeConfig,
    FollowerConfig,
    LeaderConfig,
    S3Config,
    SigningConfig,
    SourceConfig,
    parse_config,
)
from reyes.errors import ConfigError
from tests.configurations import CONTRACT, KEY, MINIMAL, OTHER_KEY, altered, problems_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "config.yaml"


def test_the_contract_is_read_as_written() -> None:
    assert parse_config(CONTRACT, "c") == Config(
        environment="production",
        s3=S3Config(bucket="acme-reyes", key="production/ruleset.gpg", region="us-west-2"),
        signing=SigningConfig(keyring_directory="/etc/reyes/keyring", signing_key=KEY),
        leader=LeaderConfig(
            sources=(
                SourceConfig(region="us-west-2", vpcs=("vpc-0a1b2c3d",)),
                SourceConfig(
                    region="eu-west-1", role_arn="arn:aws:iam::123456789012:role/reyes-leader"
                ),
            ),
            excluded_group_names=("vpn-allow-all",),
        ),
        follower=FollowerConfig(),
    )


def test_every_option_of_the_follower_has_its_default() -> None:
    given = yaml.safe_load(CONTRACT)["follower"]
    config = msgspec.json.decode(msgspec.json.encode(parse_config(MINIMAL, "c").follower))
    assert {name: config[name] for name in given} == given
    assert {name: config[name] for name in config.keys() - given.keys()} == {
        "enforce": True,
        "established": "aws",
        "rehearsal": True,
        "probes": [],
        "confirm_timeout": 20,
        "deadline": 60,
        "metrics_file": None,
    }


def test_every_option_of_the_leader_has_its_default() -> None:
    leader = parse_config(MINIMAL + "leader: {sources: [{region: us-west-2}]}", "c").leader
    assert leader == LeaderConfig(
        sources=(SourceConfig(region="us-west-2", vpcs=None, role_arn=None),),
        excluded_group_names=(),
        group_matching="name",
        validity=3600,
        max_shrink=0.3,
    )


def test_neither_side_needs_the_other() -> None:
    config = parse_config(MINIMAL, "c")
    assert (config.leader, config.follower) == (None, FollowerConfig())


@pytest.mark.parametrize(
    ("trusted", "pins"),
    [
        ([], {KEY}),
        ([OTHER_KEY], {OTHER_KEY.upper()}),
        ([KEY, OTHER_KEY], {KEY, OTHER_KEY.upper()}),
    ],
)
def test_trusted_keys_stand_instead_of_the_signing_key(trusted: list[str], pins: set[str]) -> None:
    config = parse_config(altered("signing.trusted_keys", trusted), "c")
    assert config.signing.pins == pins


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("enviroment", ", did you mean environment?"),
        ("s3.buckets", ", did you mean bucket?"),
        ("follower.log_drops", ", did you mean log_drop?"),
        ("leader.sources[0].regions", ", did you mean region?"),
        ("signing.zzz", ""),
    ],
)
def test_an_unknown_key_is_refused(path: str, meant: str) -> None:
    assert problems_of(altered(path, "x")) == [f"{path}: unknown key{meant}"]


def test_required_keys_are_asked_for() -> None:
    assert problems_of("{}") == [
        "environment: is required",
        "s3: is required",
        "signing: is required",
    ]
    assert problems_of(MINIMAL + "leader: {}") == ["leader.sources: is required"]
    assert problems_of(MINIMAL + "follower: {failsafe: [{port: 22}]}") == [
        "follower.failsafe[0].cidr: is required"
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "--- \n"])
def test_an_empty_file_is_no_configuration(text: str) -> None:
    assert problems_of(text) == ["the file: expected a mapping, got nothing"]


@pytest.mark.parametrize(("count", "more"), [(20, []), (21, ["and 1 more"])])
def test_twenty_problems_are_told_and_the_others_counted(count: int, more: list[str]) -> None:
    problems = problems_of(MINIMAL + f"follower: {{probes: [{'x, ' * count}]}}")
    assert len([one for one in problems if one.startswith("follower.probes[")]) == 20
    assert problems[20:] == more


def test_all_problems_are_told_at_once() -> None:
    text = MINIMAL.replace("bucket: acme-reyes", "bucket: A") + (
        "leader: {sources: [{region: X}, {vpcs: [vpc-1]}], validity: 1}\n"
        "follower: {traffic: some, denid: drop, failsafe: [{cidr: 10.0.0.0/40}]}\n"
    )
    assert [problem.split(":")[0] for problem in problems_of(text)] == [
        "s3.bucket",
        "leader.sources[0].region",
        "leader.sources[1].region",
        "leader.sources[1].vpcs[0]",
        "leader.validity",
        "follower.denid",
        "follower.traffic",
        "follower.failsafe[0].cidr",
    ]


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL + "environment: other\n",
        MINIMAL + "follower: {denied: drop, denied: reject}\n",
        MINIMAL + "follower: {failsafe: [{cidr: 10.0.0.0/8, cidr: 10.0.0.0/9}]}\n",
    ],
)
def test_a_key_twice_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is there twice"):
        parse_config(text, "c")


@pytest.mark.parametrize(
    "text",
    [
        "environment: [",
        "environment: {{ name }}",
        "? [environment]\n: production",
        "environment: 2026-13-45",
        "environment: !!int none",
        "environment: !!python/object/apply:os.getcwd []",
        "environment: a\n---\nenvironment: b",
        "environment: \x07",
        "environment: *nowhere",
        "environment: 022",
        "follower: {failsafe: [{cidr: 10.9.0.0/24, protocol: tcp, port: 022}]}",
        "follower: {deadline: 22:30}",
        "follower: {deadline: 0x16}",
    ],
)
def test_what_is_not_yaml_is_refused_without_a_traceback(text: str) -> None:
    with pytest.raises(ConfigError, match="c is not YAML") as caught:
        parse_config(text, "c")
    assert "unicode string" not in caught.value.message


def sections(of: Any, path: str = "") -> Iterator[tuple[str, type[Struct]]]:
    """Every struct that a configuration can hold, with the path of its place."""
    if isinstance(of, type) and issubclass(of, Struct):
        yield path, of
        for found in msgspec.structs.fields(of):
            yield from sections(found.type, f"{path}.{found.name}" if path else found.name)
    elif get_origin(of) in (tuple, Union, types.UnionType) or get_args(of):
        for part in get_args(of):
            yield from sections(part, path)


def test_the_example_is_valid_and_names_every_option() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    parse_config(text, str(EXAMPLE))
    document = yaml.safe_load(text)
    found = dict(sections(Config))
    assert set(found.values()) == {
        Config,
        S3Config,
        SigningConfig,
        LeaderConfig,
        SourceConfig,
        FollowerConfig,
        FailsafeConfig,
    }
    for path, section in found.items():
        place = document
        for step in path.split(".") if path else ():
            place = place[step]
        given = {key for each in place for key in each} if isinstance(place, list) else set(place)
        assert given == {option.name for option in msgspec.structs.fields(section)}, path


def test_what_the_example_calls_a_default_is_one() -> None:
    follower = parse_config(EXAMPLE.read_text(encoding="utf-8"), "c").follower
    assert msgspec.structs.replace(follower, failsafe=()) == FollowerConfig()
