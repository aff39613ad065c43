"""A picture as one inline <svg>: drawn with paths, so that no file, no script and no font is fetched."""

from __future__ import annotations

import hashlib
import html
import io
import re
from dataclasses import dataclass
from typing import Any

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#333333")
"""Okabe and Ito's, which the colour-blind tell apart."""


@dataclass(frozen=True)
class Picture:
    """An <svg> element and what it shows, which is its caption and what a screen reader says."""

    title: str
    svg: str
    wide: bool = False
    """Not to be made smaller on a small screen: it is scrolled there."""

    @property
    def document(self) -> str:
        """A file of its own, with the name spaces that only a page may leave out."""
        names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        return self.svg.replace("<svg", f"<svg {names}", 1)


def plain(text: str) -> str:
    """A name as it is drawn: cut where it would leave no room for the picture, and no formula, whatever $ it has."""
    return (text if len(text) <= 40 else f"{text[:39]}…").replace("$", r"\$")


def figure_of(x: str, y: str, width: float = 4.8, height: float = 3.0) -> tuple[Any, Any]:
    """A figure and its axes, so small (inches) that its letters are still read on a phone."""
    figure, axes = panels_of(1, 1, width, height)
    axes[0][0].set_xlabel(plain(x))
    axes[0][0].set_ylabel(plain(y))
    return figure, axes[0][0]


def panels_of(
    rows: int, columns: int, width: float, height: float, **share: Any
) -> tuple[Any, Any]:
    """A figure of that size in inches, and its axes as `axes[row][column]`. share: sharex, sharey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **share)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    return figure, axes


def picture_of(figure: Any, axes: Any, title: str, wide: bool = False) -> Picture:
    """With a legend on `axes` (None: nowhere) where there are several labels; the same figure gives the same bytes."""
    import matplotlib

    if axes is not None and len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize="small")
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": title}):
        figure.savefig(
            out,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return Picture(title, _inline(out.getvalue(), title), wide)


def _inline(text: str, title: str) -> str:
    """The <svg> element alone: no header, no name spaces (HTML knows them), and ids that no other picture has."""
    own = "p" + hashlib.blake2b(title.encode(), digest_size=4).hexdigest()
    drawing = re.sub(
        r"<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    drawing = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawing).replace("xlink:href=", "href=")
    drawing = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{own}-", drawing)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
