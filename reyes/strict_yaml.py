"""Read YAML into values of a type, strictly, and tell all that is wrong with it at once."""

import difflib
import re
import types
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import yaml
from msgspec import Meta, Struct

_MAX_DEPTH = 12
"""Levels of YAML; the deepest option of a configuration, an entry of `vpcs`, needs six."""

_MAX_SHOWN = 100
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Characters that no path, name or tag has, and that paths or JSON could not even hold."""


_WORDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "str": "a text",
}
"""What msgspec's names of types are to people who write YAML."""

_NAMELESS = 'in "<unicode string>", '
"""What PyYAML calls a text; whoever reports the error names the file."""


def load(text: str) -> Any:
    """Read what YAML says, as numbers, texts, lists and mappings.

    Raises:
        ValueError: it is no YAML, or says something that may mean two things.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, see below
    # The last two are what PyYAML lets through of a date or a tag such as `!!bool maybe`.
    except (yaml.YAMLError, LookupError, AttributeError) as error:
        raise ValueError(str(error).replace(_NAMELESS, "in ")) from error


def convert(expected: Any, raw: Any) -> tuple[Any, list[str]]:
    """Convert what was read to a type; each problem names its key by path.

    The value counts only if there is no problem. A type's `Meta` may hold a `description` for
    people, and a function `check` in `extra` that raises ValueError.
    """
    problems: list[str] = []
    return _read(expected, raw, "", problems), problems


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader without what it leaves to luck.

    It keeps the last of two equal keys, and follows aliases and levels without end: a few lines
    of aliases to lists of aliases are gigabytes once they are shown or merged. To it 022 is 18,
    and 22:30 is 1350.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refusal("aliases are not supported, write the value out")
        if self._depth == _MAX_DEPTH:
            raise self._refusal(f"more than {_MAX_DEPTH} levels")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _refusal(self, problem: str) -> yaml.YAMLError:
        return yaml.composer.ComposerError(problem=problem, problem_mark=self.get_mark())

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[Any] = set()
        scalars = (key for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key_node in scalars:
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} is there twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if not _DECIMAL.fullmatch(node.value):
            raise yaml.constructor.ConstructorError(
                problem=f"{_shown(node.value)} is no plain decimal number: write one, or quote it",
                problem_mark=node.start_mark,
            )
        return super().construct_yaml_int(node)


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)


def _read(expected: Any, raw: Any, path: str, problems: list[str]) -> Any:
    """Convert one value and collect problems; the result counts only if none was added."""
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        inner = next(a for a in get_args(expected) if a is not types.NoneType)
        return None if raw is None else _read(inner, raw, path, problems)
    if origin is Annotated and get_origin(get_args(expected)[0]) is tuple:
        before = len(problems)
        items = _read(get_args(expected)[0], raw, path, problems)
        return _leaf(expected, items, path, problems) if len(problems) == before else None
    if origin is tuple:
        if not isinstance(raw, list):
            problems.append(f"{path}: expected a list, got {_shown(raw)}")
            return None
        of = get_args(expected)[0]
        return tuple(_read(of, item, f"{path}[{i}]", problems) for i, item in enumerate(raw))
    if isinstance(expected, type) and issubclass(expected, Struct):
        return _read_section(expected, raw, path, problems)
    return _leaf(expected, raw, path, problems)


def _read_section(expected: type[Struct], raw: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(raw, dict):
        problems.append(f"{path or 'the file'}: expected a mapping, got {_shown(raw)}")
        return None
    fields = {info.name: info for info in msgspec.structs.fields(expected)}
    before = len(problems)
    prefix = f"{path}." if path else ""
    unknown = (key for key in raw if key not in fields)
    problems += [f"{prefix}{_word(key)}: unknown key{_suggestion(key, fields)}" for key in unknown]
    values: dict[str, Any] = {}
    for name, info in fields.items():
        if name in raw:
            values[name] = _read(info.type, raw[name], prefix + name, problems)
        elif info.required:
            problems.append(f"{prefix}{name}: is required")
    return expected(**values) if len(problems) == before else None


def _leaf(expected: Any, raw: Any, path: str, problems: list[str]) -> Any:
    meta = next((a for a in get_args(expected) if isinstance(a, Meta)), Meta())
    check: Callable[[Any], object] = (meta.extra or {}).get("check", lambda _: None)
    try:
        value = msgspec.convert(raw, expected)
        check(value)
    except ValueError as error:
        wanted = meta.description
        if get_origin(expected) is Literal:
            wanted = "one of " + ", ".join(get_args(expected))
        elif wanted is None:
            said = str(error).removeprefix("Expected ").replace("`", "").partition(", got")[0]
            kind, *limits = said.split(" ", 1)
            wanted = " ".join([_WORDS.get(kind, kind), *limits])
        problems.append(f"{path}: expected {wanted}, got {_shown(raw)}")
        return None
    if isinstance(value, str) and _UNUSABLE.search(value):
        problems.append(f"{path}: expected no control characters, got {_shown(raw)}")
    return value


def _suggestion(key: Any, fields: Iterable[str]) -> str:
    near = difflib.get_close_matches(_word(key), fields, n=1)
    return f", did you mean {near[0]}?" if near else ""


def _word(key: Any) -> str:
    plain = isinstance(key, str) and len(key) <= _MAX_SHOWN and key.isprintable()
    return key if plain else _shown(key)


def _shown(raw: Any) -> str:
    if raw is None:
        return "nothing"
    try:
        text = repr(raw)
    except ValueError:  # Python does not write thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
