"""The drawing of lorakit's rooms, docs/pictures/architecture.svg, from the layers in
pyproject.toml.

    python scripts/make_architecture.py

A room's sentence is the first one of its package's docstring, so the drawing says what the code
says.
"""

from __future__ import annotations

import argparse
import ast
import re
from html import escape
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "pictures" / "architecture.svg"
WIDTH, MARGIN, GAP, LABEL = 1160, 20, 12, 150
LINE_HEIGHT, TITLE_HEIGHT, PADDING, FLOOR_GAP = 16, 22, 12, 26
CHARACTER_WIDTH = 6.3
FLOORS = {
    "cli": "command line",
    "api": "leaves",
    "verbs": "commands",
    "report": "pages",
    "runs": "run folders",
    "training": "work",
    "recipe": "inputs",
    "methods": "plug-ins",
    "fast": "speed",
    "nn": "tensors, scores",
    "registry": "registry",
    "errors": "ground",
}
"""The first room of a floor -> the floor's label."""


def layers() -> list[list[str]]:
    """The rooms of each floor, from the top; a room imports from the floors below it only."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^layers = \[(.*?)^\]", settings, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError("pyproject.toml has no import layers")
    return [
        [name.strip().removeprefix("lorakit.") for name in layer.split("|")]
        for layer in re.findall(r'"([^"]+)"', found[1])
    ]


def sentence(room: str) -> str:
    """The first sentence of a room's docstring."""
    path = ROOT / "lorakit" / room
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(said.split("\n\n")[0].split())
    first, dot, _ = paragraph.partition(". ")
    return (first + dot.strip()).replace("`", "")


def picture() -> str:
    """The drawing as SVG."""
    parts: list[str] = []
    top = MARGIN
    for rooms in layers():
        width = (WIDTH - 2 * MARGIN - LABEL - GAP * (len(rooms) - 1)) / len(rooms)
        texts = {
            room: wrap(sentence(room), int((width - 2 * PADDING) / CHARACTER_WIDTH))
            for room in rooms
        }
        height = TITLE_HEIGHT + PADDING + LINE_HEIGHT * max(len(lines) for lines in texts.values())
        middle = top + height / 2
        label = FLOORS.get(rooms[0], "")
        place = f'x="{MARGIN}" y="{middle + 4:.0f}"'
        parts.append(f'<text class="floor" {place}>{escape(label)}</text>')
        for number, room in enumerate(rooms):
            left = MARGIN + LABEL + number * (width + GAP)
            parts += box(room, texts[room], left, top, width, height)
        top += height + FLOOR_GAP
        parts.append(arrow(MARGIN + LABEL + (WIDTH - 2 * MARGIN - LABEL) / 2, top - FLOOR_GAP))
    parts.pop()  # nothing is below the ground
    height = top - FLOOR_GAP + MARGIN
    return "\n".join([head(height), *parts, "</svg>", ""])


def head(height: float) -> str:
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"
 font-family="system-ui, sans-serif" font-size="12">
<title>The rooms of lorakit; arrows point to what is imported</title>
<style>
rect.page {{ fill: #fff }} rect.room {{ fill: #eef3f7; stroke: #607d8b }}
text {{ fill: #37474f }} text.name {{ font-weight: 600; font-size: 14px }}
text.floor {{ fill: #78909c; font-size: 13px }}
path {{ stroke: #90a4ae; fill: none; stroke-width: 1.5 }}
</style>
<rect class="page" width="{WIDTH}" height="{height:.0f}"/>"""


def box(
    room: str, lines: list[str], left: float, top: float, width: float, height: float
) -> list[str]:
    """One room: its name, and its sentence in lines."""
    x = left + PADDING
    place = f'x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6"'
    found = [f'<rect class="room" {place}/>']
    found.append(f'<text class="name" x="{x:.0f}" y="{top + TITLE_HEIGHT - 3:.0f}">{room}</text>')
    for number, line in enumerate(lines, 1):
        y = top + TITLE_HEIGHT + number * LINE_HEIGHT - 2
        found.append(f'<text x="{x:.0f}" y="{y:.0f}">{escape(line)}</text>')
    return found


def arrow(x: float, y: float) -> str:
    """From one floor down to the next."""
    end = y + FLOOR_GAP - 5
    return f'<path d="M{x:.0f} {y + 4:.0f}V{end:.0f}m-4 -5l4 5l4 -5"/>'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    PICTURE.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
