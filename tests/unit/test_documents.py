"""What the documents say is there: commands, options, keys, exit codes, files, targets."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree as ET

import click
import msgspec
import pytest

import reyes
from reyes import errors
from reyes.cli import COMMANDS, main
from reyes.config import Config, FollowerConfig, parse_config
from reyes.netfilter import names

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PROSE = sorted([README, ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
PLAIN = sorted([ROOT / "examples/config.yaml", ROOT / "Makefile", *ROOT.glob("packaging/**/*.*")])
SOURCES = sorted(ROOT.glob("reyes/**/*.py"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
CALL = re.compile(r"(?<![\w/.-])(?:/opt/reyes/bin/)?reyes(?: -v)? ([a-z][a-z-]*)([^|>#;`\"\n]*)")
FILE = re.compile(
    r"(?<![\w/.-])(?:(?:docs|examples|packaging|scripts|tests)/|reyes/\S*\.py)[\w./-]*"
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
KEY = re.compile(r"^(?:s3|signing|leader|follower)(?:\.(?!py$)[a-z_]+)+$")
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(path: Path, *languages: str) -> list[str]:
    found = FENCE.findall(path.read_text(encoding="utf-8"))
    return [text for language, text in found if not languages or language in languages]


def anchors(path: Path) -> set[str]:
    """Return the names that a forge gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_in(path: Path) -> str:
    """Return what a file shows as code: all of it, unless it is prose or a Python source."""
    text = path.read_text(encoding="utf-8")
    if path in PLAIN:
        return text
    without_blocks = FENCE.sub("", text) if path in PROSE else text
    shown = fences(path, "sh", "console", "cron") if path in PROSE else []
    return "\n".join([*shown, *SPAN.findall(without_blocks)])


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None, f"there is no command {name}"
    return found


def options_of(found: click.Command) -> set[str]:
    return {"--help"}.union(
        *(parameter.opts + parameter.secondary_opts for parameter in found.params)
    )


def calls() -> Iterator[tuple[Path, str, list[str]]]:
    for path in [*PROSE, *PLAIN, *SOURCES]:
        for name, rest in CALL.findall(code_in(path)):
            words = shlex.split(rest.replace("'", ""))
            yield path, name, [word.partition("=")[0] for word in words if word.startswith("--")]


def test_commands_and_options_that_are_shown_exist() -> None:
    shown = list(calls())
    assert len(shown) > 30
    wrong = [
        f"{name_of(path)}: reyes {name} {' '.join(options)}"
        for path, name, options in shown
        if name not in COMMANDS or not options_of(command(name)).issuperset(options)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_cuts_no_sentence(name: str) -> None:
    assert not command(name).get_short_help_str(57).endswith("...")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_is_in_the_readme(name: str) -> None:
    found = command(name)
    assert found.help
    assert [
        p.name for p in found.params if isinstance(p, click.Option) and not p.help and not p.hidden
    ] == []
    assert f"reyes {name}" in code_in(README)


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (?:`(\w+)`)? *\|", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    documented = [(int(code), name) for code, name in rows]
    classes = errors.ReyesError.__subclasses__()
    for error in classes:
        assert all(special.exit_code == error.exit_code for special in error.__subclasses__())
    raised = [(error.exit_code, error.__name__) for error in classes]
    assert documented == sorted([(0, ""), (1, ""), (2, ""), *raised, (141, "")])


def keys_of(section: Any) -> dict[str, Any]:
    """Return the keys that a configuration section may have, with those of sections in it."""
    found = {}
    for field in msgspec.structs.fields(section):
        inner = [t for t in (field.type, *get_args(field.type)) if isinstance(t, type)]
        nested = next((t for t in inner if issubclass(t, msgspec.Struct)), None)
        found[field.name] = keys_of(nested) if nested else None
    return found


def test_the_readme_calls_nothing_a_default_that_is_none() -> None:
    (text,) = fences(README, "yaml")
    follower = parse_config(text, "README.md").follower
    assert msgspec.structs.replace(follower, failsafe=()) == FollowerConfig()


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_configuration_in_documents_can_be_used(path: Path) -> None:
    for text in fences(path, "yaml"):
        parse_config(text, name_of(path))


def test_configuration_keys_that_are_named_exist() -> None:
    named = {
        span
        for path in PROSE
        for span in SPAN.findall(path.read_text(encoding="utf-8"))
        if KEY.match(span)
    }
    assert named
    for key in named:
        known: Any = keys_of(Config)
        for part in key.split("."):
            assert part in known, f"{key} is no configuration key"
            known = known[part]


def test_the_newest_version_in_the_changelog_is_ours() -> None:
    versions = re.findall(
        r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert next(version for version in versions if version != "Unreleased") == reyes.__version__


def policies() -> list[dict[str, Any]]:
    documents = [json.loads(text) for text in fences(README, "json")]
    return [document for document in documents if "Statement" in document]


def allowed(policy: dict[str, Any]) -> set[str]:
    actions: set[str] = set()
    for statement in policy["Statement"]:
        if statement["Effect"] == "Allow":
            action = statement["Action"]
            actions.update([action] if isinstance(action, str) else action)
    return actions


def test_json_in_documents_parses() -> None:
    for path in PROSE:
        for text in fences(path, "json"):
            json.loads(text)


def test_the_policies_allow_what_is_called_and_no_more() -> None:
    bucket, leader, trust, follower = policies()
    source = (ROOT / "reyes/adapters/ec2.py").read_text(encoding="utf-8")
    described = {f"ec2:{call}" for call in re.findall(r'"((?:Describe|Get)[A-Z]\w+)"', source)}
    of_bucket = {"s3:GetObject", "s3:PutObject", "s3:ListBucket"}
    assert allowed(bucket) == set()
    assert allowed(leader) == described | of_bucket | {"sts:AssumeRole"}
    assert allowed(trust) == {"sts:AssumeRole"}
    assert allowed(follower) == {"s3:GetObject"}


def test_the_bucket_policy_is_about_the_configured_object() -> None:
    config = parse_config(fences(README, "yaml")[0], "README.md")
    bucket = f"arn:aws:s3:::{config.s3.bucket}"
    resources = re.findall(r'"(arn:aws:s3:::[^"]+)"', README.read_text(encoding="utf-8"))
    assert set(resources) == {
        bucket,
        f"{bucket}/*",
        f"{bucket}/archive/*",
        f"{bucket}/{config.s3.key}",
    }


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    links = LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not leads_somewhere(path, link)] == []


def leads_somewhere(path: Path, link: str) -> bool:
    page, _, anchor = link.partition("#")
    there = path.parent / page if page else path
    return there.exists() and (not anchor or anchor in anchors(there))


def test_files_that_are_named_exist() -> None:
    paths = [*PROSE, *PLAIN, *SOURCES, ROOT / "pyproject.toml"]
    named = {
        (name_of(path), file.rstrip("."))
        for path in paths
        for file in FILE.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    # An ADR may be named by its number alone.
    missing = [
        (where, file)
        for where, file in sorted(named)
        if not (ROOT / file).exists() and not list(ROOT.glob(f"{file}-*.md"))
    ]
    assert missing == []


def test_units_that_are_named_exist() -> None:
    named = {
        unit
        for path in [*PROSE, *PLAIN]
        for unit in re.findall(r"reyes-[a-z-]+\.(?:service|timer)", path.read_text("utf-8"))
    }
    assert {path.name for path in ROOT.glob("packaging/systemd/reyes-*")} == named


def test_sets_that_are_shown_are_named_after_their_members() -> None:
    shown = "".join(text for path in PROSE for text in fences(path, "console", "text"))
    lists = re.findall(r"^# ipset list (\S+)\nMembers:\n((?:\d.*\n)+)", shown, re.MULTILINE)
    assert lists
    for name, members in lists:
        assert names.vouches_for(name, members.splitlines())
    for name in re.findall(r"\b[rsp][46]:[\w.-]+:[\w-]+", shown):
        assert names.owns_set(name), name


def test_make_targets_that_are_named_exist() -> None:
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = {target for path in PROSE for target in MAKE.findall(code_in(path))}
    assert {"demo", "test"} <= named <= targets


def test_the_picture_is_an_image_with_a_description() -> None:
    picture = ET.parse(ROOT / "docs/architecture.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert picture.findtext("{*}title")
    assert picture.findtext("{*}desc")


def test_decisions_are_numbered_without_gap() -> None:
    numbers = [int(path.name[:4]) for path in sorted(ROOT.glob("docs/adr/*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/adr/*.md")), ids=name_of)
def test_decisions_have_a_context_a_decision_and_their_price(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.name[:4]}: ")
    for heading in ("## Context", "## Decision", "## Consequences"):
        assert f"\n{heading}\n" in text
    assert "Negative: " in text.partition("## Consequences")[2]


def test_every_section_of_the_design_ends_with_review_notes() -> None:
    sections = (ROOT / "docs/design.md").read_text(encoding="utf-8").split("\n## ")[1:]
    assert len(sections) > 5
    for section in sections:
        last = section.rpartition("\n### ")[2]
        assert last.startswith("Review notes\n"), section.partition("\n")[0]
        assert "?" in last
