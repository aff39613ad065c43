"""Figures of the code's size and style, one line each.

    python scripts/house_figures.py [FOLDER ...]

They are what CONTRIBUTING.md's rules are measured by. A parameter that is `self` or `cls` is not
counted.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

LINE_LIMIT = 100
PARAMETER_LIMIT = 6
DUPLICATE_LINES = 6
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="*", default=["lorakit"], metavar="FOLDER")
    for folder in parser.parse_args().folder:
        print(f"## {folder}")
        for name, value in figures(Path(folder)).items():
            print(f"{name:42} {value}")


def figures(folder: Path) -> dict[str, str]:
    """The figures of all Python files under `folder`. ValueError: there are none."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))]
    if not texts:
        raise ValueError(f"no Python files under {folder}")
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    lines = [line for text in texts for line in text.splitlines()]
    functions = [node for node in nodes if isinstance(node, Function)]
    lengths = sorted((f.end_lineno or f.lineno) - f.lineno + 1 for f in functions)
    ternaries = [node for node in nodes if isinstance(node, ast.IfExp)]
    nested = [
        t for t in ternaries if any(isinstance(n, ast.IfExp) for n in ast.walk(t) if n is not t)
    ]
    long = sum(len(line) > LINE_LIMIT for line in lines)
    annotated = sum(
        "Any" in ast.unparse(a.annotation) for f in functions for a in parameters(f) if a.annotation
    )
    return {
        "files": f"{len(texts):,}",
        "lines": f"{len(lines):,}",
        "statements": f"{sum(isinstance(node, ast.stmt) for node in nodes):,}",
        "functions": f"{len(functions):,}",
        "lines of a function, median / longest": f"{lengths[len(lengths) // 2]} / {lengths[-1]}",
        f"functions with more than {PARAMETER_LIMIT} parameters": str(
            sum(len(parameters(f)) > PARAMETER_LIMIT for f in functions)
        ),
        "ternaries per 1,000 lines": f"{1000 * len(ternaries) / len(lines):.1f}",
        "nested ternaries": str(len(nested)),
        f"lines over {LINE_LIMIT} characters": f"{long:,} ({100 * long / len(lines):.1f} %)",
        "`fmt: skip`": str(sum("# fmt: skip" in line for line in lines)),
        "parameters annotated with Any": str(annotated),
        "comments per 100 lines": f"{100 * sum(map(comments, texts)) / len(lines):.1f}",
        f"places that share {DUPLICATE_LINES} lines with another": str(duplicates(texts)),
    }


def parameters(function: Function) -> list[ast.arg]:
    """The parameters of a function, without `self` and `cls`."""
    given = function.args
    optional = [arg for arg in (given.vararg, given.kwarg) if arg is not None]
    found = [*given.posonlyargs, *given.args, *given.kwonlyargs, *optional]
    return [arg for arg in found if arg.arg not in ("self", "cls")]


def comments(text: str) -> int:
    """The comments of one file, without those that switch a tool off."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    said = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return sum(not word.startswith(("# fmt:", "# type:", "# noqa", "# pyright:")) for word in said)


def duplicates(texts: list[str]) -> int:
    """Blocks of DUPLICATE_LINES code lines that stand more than once; overlapping blocks count
    once."""
    places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, text in enumerate(texts):
        for start, block in blocks(text):
            places[block].append((number, start))
    repeated = {place for found in places.values() if len(found) > 1 for place in found}
    return sum((number, start - 1) not in repeated for number, start in repeated)


def blocks(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every run of DUPLICATE_LINES lines of code; imports and lines of brackets alone are no code
    here."""
    stripped = [line.strip() for line in text.splitlines()]
    code = [
        line
        for line in stripped
        if len(line) > 3 and not line.startswith(("import ", "from ", "#"))
    ]
    for start in range(len(code) - DUPLICATE_LINES + 1):
        yield start, tuple(code[start : start + DUPLICATE_LINES])


if __name__ == "__main__":
    main()
