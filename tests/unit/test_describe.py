"""A ruleset in words."""

import pytest
from msgspec.structs import replace

from reyes.cli.describe import describe, describe_instance
from reyes.errors import HostUnknownError
from reyes.ruleset import Content, Ruleset, SecurityGroup
from reyes.trust import Genuine
from tests.worlds import header_for, small_world

NOW = 1_795_000_000
SIGNER = "0123456789ABCDEF0123456789ABCDEF01234567"


def genuine(content: Content | None = None, expires: int | None = None) -> Genuine:
    content = content or small_world()
    ruleset = Ruleset(header=header_for(content, NOW), content_sha256="c" * 64, content=content)
    return Genuine(ruleset=ruleset, digest="d" * 64, signer=SIGNER, key_expires_at=expires)


def with_group(**changes: object) -> Content:
    """The small world with its western `web` changed."""
    world = small_world()
    eu, west = world.regions
    groups = (replace(west.groups[0], **changes), *west.groups[1:])
    return replace(world, regions=(eu, replace(west, groups=groups)))


def rule_line(content: Content) -> str:
    """How the rule of `db` that refers to `web` is told."""
    return next(line for line in describe(genuine(content), NOW) if "5432" in line).strip()


def test_header_in_words() -> None:
    text = "\n".join(describe(genuine(expires=NOW + 86_400), NOW + 300))
    assert text.startswith("ruleset 1795000000000 for production\n")
    assert "generated  2026-11-18T11:06:40Z (5 minutes ago)" in text
    assert "generator  leader-a reyes/2.0.0" in text
    assert "not after  2026-11-18T12:06:40Z (in 55 minutes)" in text
    assert f"signed by  {SIGNER} (key expires 2026-11-19T11:06:40Z)" in text
    assert "holds      2 sources, 2 VPCs, 3 groups, 4 rules, 4 interfaces" in text
    assert "excluded   vpn-allow-all" in text


def test_times_on_the_wrong_side_are_said() -> None:
    text = "\n".join(describe(genuine(), NOW + 4320))
    assert "(expired 12 minutes ago)" in text
    assert "(10 minutes ahead of this host)" in "\n".join(describe(genuine(), NOW - 600))


def test_everything_is_told() -> None:
    lines = list(describe(genuine(), NOW))
    text = "\n".join(lines)
    assert [line for line in lines if line.startswith("region")] == [
        "region eu-west-1",
        "region us-west-2",
    ]
    assert "  vpc-0a1b2c3d of account 123456789012: 10.1.0.0/16" in lines
    assert "  group db (sg-0000000b) in vpc-0a1b2c3d" in lines
    assert "    allows tcp 443 from 0.0.0.0/0, ::/0" in lines
    assert "    allows icmp 8 from prefix list pl-0000000a" in lines
    assert "  prefix list pl-0000000a: 192.0.2.0/24, 198.51.100.7" in lines
    assert "10.1.0.10 2001:db8::10 (i-0000000a), 10.1.0.12 (eni-0000000c)" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (with_group(), "group web (sg-0000000a) and all that match web"),
        (with_group(name="default"), "group default (sg-0000000a)"),
        (replace(with_group(), group_matching="id"), "group web (sg-0000000a)"),
        (
            replace(with_group(tag="front"), group_matching="tag:role"),
            "group web (sg-0000000a) and all that match front",
        ),
        (replace(with_group(), group_matching="tag:role"), "group web (sg-0000000a)"),
        (
            replace(with_group(), excluded_group_names=("web",)),
            "group web (sg-0000000a) (nobody: 'web' is excluded)",
        ),
    ],
)
def test_reference_says_whom_it_means(content: Content, words: str) -> None:
    assert rule_line(content) == f"allows tcp 5432-5433 from {words}"


def test_references_to_nobody_say_so() -> None:
    text = "\n".join(describe(genuine(), NOW))
    assert "group sg-0000000c (nobody: no such group (account 210987654321) in what" in text
    assert "group sg-0000000d (nobody: stale: its VPC peering connection is deleted)" in text
    world = small_world()
    bare = replace(world, regions=(replace(world.regions[1], prefix_lists=()),))
    assert "prefix list pl-0000000a (unknown, matches nobody)" in "\n".join(
        describe(genuine(bare), NOW)
    )


def test_excluded_group_allows_nothing() -> None:
    content = replace(small_world(), excluded_group_names=("web",))
    text = "\n".join(describe(genuine(content), NOW))
    assert "group web (sg-0000000a) in vpc-0a1b2c3d (excluded, allows nothing)" in text


@pytest.mark.parametrize(
    "name", ["\x1b[2Jweb", "a\nb", " web", "\u202eweb", "", "x), group db (sg-1", "a, b", "'a'"]
)
def test_name_that_could_fool_a_terminal_or_a_reader_is_quoted(name: str) -> None:
    text = "\n".join(describe(genuine(with_group(name=name)), NOW))
    assert f"group {name!r} (sg-0000000a)" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_instance_view_holds_what_concerns_it_and_no_more() -> None:
    lines = list(describe_instance(genuine(), "i-0000000b", NOW))
    text = "\n".join(lines)
    assert "instance i-0000000b in region us-west-2" in lines
    assert "  interface eni-0000000b in vpc-0a1b2c3d: 10.1.0.11, 10.1.16.0/28" in lines
    assert "    groups group db (sg-0000000b)" in lines
    assert "  referenced group web (sg-0000000a) in vpc-0a1b2c3d" in lines
    matched = lines.index("  referenced group web (sg-0000000e) in vpc-0e0e0e0e of eu-west-1")
    assert lines[matched + 1] == "    members 10.2.0.10 (i-0000000e)"
    assert "  prefix list pl-0000000a: 192.0.2.0/24, 198.51.100.7" in lines
    assert text.count("eu-west-1") == 1
    assert "allows tcp 443" not in text
    other = "\n".join(describe_instance(genuine(), "i-0000000a", NOW))
    assert "allows tcp 443" in other
    assert "5432" not in other
    assert "prefix list" not in other


def test_group_that_the_ruleset_lacks_is_shown_by_its_id() -> None:
    world = small_world()
    groups: tuple[SecurityGroup, ...] = ()
    content = replace(world, regions=(replace(world.regions[1], groups=groups),))
    text = "\n".join(describe_instance(genuine(content), "i-0000000b", NOW))
    assert "    groups group sg-0000000b" in text


def test_unknown_instance_is_said() -> None:
    with pytest.raises(HostUnknownError, match="i-00000001"):
        list(describe_instance(genuine(), "i-00000001", NOW))
