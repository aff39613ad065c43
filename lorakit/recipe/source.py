"""One YAML file: its values, and for each value the line it stands on and the comment beside it.

A subset of YAML on purpose: no tags, no anchors, no duplicate keys; `yes` and `no` are words, and `4e-4` is a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lorakit.errors import RecipeError


@dataclass(frozen=True)
class Mark:
    """Where a value was given: file, line (from 1; 0 for the command line), and the comment at the line's end."""

    file: str
    line: int = 0
    comment: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


Marks = dict[tuple[str, ...], Mark]

DEPTH = 30
"""Levels of nesting; a recipe has four."""
MOST = 40_000
"""Tokens; a recipe has some hundreds, a study of a thousand cells 20,000, a run with 13,000 labels as many as this."""
WIDEST = 2_000
"""Characters of a line whose comment is looked for: for each value of the line the whole of it is searched."""
LARGEST = 8_000_000
"""Bytes of a file."""
LONGEST = 100
"""Characters of a number: the regex below takes a time that grows with their square."""
_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
_HALF = re.compile("[\ud800-\udfff]")
"""Half of a character. A byte of a path that is not UTF-8 is read as one, and no file holds it."""
_NUMBER = re.compile(r"[-+]?(\d[\d_]*)?\.?\d+([eE][-+]?\d+)?|[-+]?\d[\d_]*\.([eE][-+]?\d+)?")
_COMMENT = re.compile(r"(?:^|\s)#\s?(.*)$")


def read(path: Path) -> tuple[dict[str, Any], Marks]:
    """The mapping in a YAML file, and the marks of every key path in it."""
    shown = _short(path)
    try:
        if path.stat().st_size > LARGEST:
            raise RecipeError(
                f"{shown} has {path.stat().st_size:,} bytes, and {LARGEST:,} are the most of a recipe"
            )
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{shown} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise RecipeError(f"cannot read {shown}: {error.strerror}") from None
    data, marks = parse(text, shown)
    if data is None:
        raise RecipeError(
            f"{shown} is empty; `lorakit recipes show glue_mrpc` prints a recipe to start from"
        )
    if not isinstance(data, dict):
        raise RecipeError(
            f"{shown}:1: a recipe is a mapping of keys to values, this is a {type(data).__name__}"
        )
    return data, marks


def parse(text: str, file: str) -> tuple[Any, Marks]:
    """YAML text to plain data and marks. RecipeError with file and line for what this subset does not take."""
    try:
        _refuse_what_is_not_taken(text, file)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecipeError:
        raise
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        OverflowError,
    ) as error:  # the last two: of no character
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark and not file.startswith("command line") else file
        problem = getattr(error, "problem", None) or str(error) or "nested too deeply"
        raise RecipeError(f"{where}: this is not YAML: {problem}") from None
    marks: Marks = {}
    try:
        data = None if node is None else _value(node, (), marks, file, text.splitlines())
    except RecursionError:
        raise RecipeError(f"{file}: this is not a recipe: nested too deeply") from None
    return data, marks


class _Dumper(yaml.SafeDumper):
    """Writes what `parse` reads back as the same: no aliases, and a text that looks like a number is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if scalar(text) == text else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def written(data: dict[str, Any], unicode: bool = True) -> str:
    """Plain data as YAML that `read` gives back as it was."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=unicode)


def _refuse_what_is_not_taken(text: str, file: str) -> None:
    what = {
        yaml.TagToken: "tags (!)",
        yaml.AnchorToken: "anchors (&)",
        yaml.AliasToken: "aliases (*)",
    }
    depth = 0
    for number, token in enumerate(yaml.scan(text, Loader=yaml.SafeLoader)):
        if type(token) in what:
            raise RecipeError(
                f"{file}:{token.start_mark.line + 1}: {what[type(token)]} are not taken in a recipe; "
                "quote the value if it is meant as text"
            )
        if number == MOST:
            raise RecipeError(f"{file}:{token.start_mark.line + 1}: this is not a recipe: too long")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > DEPTH:  # PyYAML takes a time that grows with its square
            raise RecipeError(
                f"{file}:{token.start_mark.line + 1}: this is not a recipe: nested too deeply"
            )


def _value(
    node: yaml.Node, path: tuple[str, ...], marks: Marks, file: str, lines: list[str]
) -> Any:
    if isinstance(node, yaml.ScalarNode):
        refuse_halves(node.value, f"{file}:{node.start_mark.line + 1}: {'.'.join(path)}")
        return scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            marks[(*path, str(i))] = _mark(item, item, file, lines)
        return [
            _value(item, (*path, str(i)), marks, file, lines) for i, item in enumerate(node.value)
        ]
    assert isinstance(node, yaml.MappingNode)
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        here = f"{file}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise RecipeError(f"{here}: a key must be a word")
        key = key_node.value
        refuse_halves(key, here)
        if key == "<<" and key_node.style is None:
            raise RecipeError(
                f"{here}: merge keys (<<) are not taken in a recipe; `extends` names what it stands on"
            )
        if key in data:
            raise RecipeError(
                f"{here}: {'.'.join((*path, key))} is given twice; keep one of the two"
            )
        marks[(*path, key)] = _mark(key_node, value_node, file, lines)
        data[key] = _value(value_node, (*path, key), marks, file, lines)
    return data


def _mark(key: yaml.Node, value: yaml.Node, file: str, lines: list[str]) -> Mark:
    # the comment stands after the value where both share a line, else (a block opens) after the key
    line = key.start_mark.line
    end = value.end_mark if value.end_mark.line == line else key.end_mark
    looked_at = line < len(lines) and end.line == line and len(lines[line]) <= WIDEST
    found = _COMMENT.search(lines[line][end.column :]) if looked_at else None
    return Mark(file, line + 1, found.group(1).strip() if found else "")


def refuse_halves(text: str, where: str) -> None:
    """RecipeError: the text holds bytes that are not UTF-8; the run folder could not hold it."""
    if found := _HALF.search(text):
        raise RecipeError(
            f"{where}: {text!r} holds {found.group()!r}, which is no character (a byte that is not UTF-8, say); rename "
            "the file, or write the text as UTF-8"
        )


def scalar(text: str) -> Any:
    """A plain YAML scalar: null, true, false, a number (4e-4 too), or text."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if text in (".inf", "-.inf", ".nan"):
        return float(text.replace(".", ""))
    if len(text) <= LONGEST and _NUMBER.fullmatch(text):
        digits = text.replace("_", "")
        return int(digits) if re.fullmatch(r"[-+]?\d{1,18}", digits) else float(digits)
    return text


def _short(path: Path) -> str:
    """The path as a user would type it: relative to the working directory where it is below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
