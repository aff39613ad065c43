"""Normalisation of METEOR 1.5 (option -norm): from an English text to the words that are aligned.

Punctuation becomes words of its own, words with a hyphen and contractions are split, abbreviations
lose their full stops. The result depends on the order of the steps, and on matches of one step not
sharing a character.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

ANYWHERE, BEFORE_NUMBER = 1, 2
"""The places where a full stop after an abbreviation does not end a sentence."""

# letters of western Europe, of Cyrillic, and of phonetic writing
_LETTER = "A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u017e\u0400-\u0527\ua640-\ua66e\ua67e-\ua697\u1d00-\u1d7f"
_ALONE = re.compile(rf"[^0-9{_LETTER} \t\n\x0b\f\r.'`,\-‘’]")
_APOSTROPHES = {
    f"([^{_LETTER}])'([^{_LETTER}])": r"\1 ' \2",
    f"([^{_LETTER}0-9])'([{_LETTER}])": r"\1 ' \2",
    f"([{_LETTER}])'([^{_LETTER}])": r"\1 ' \2",
    f"([{_LETTER}])'([{_LETTER}])": r"\1 '\2",
    "([0-9])'(s)": r"\1 '\2",
}
_HYPHEN = re.compile(f"([0-9{_LETTER}.])-([0-9{_LETTER}])")
_ANY_LETTER = re.compile(f"[{_LETTER}]")
_WIDE_SPACES = re.compile("[ \u2000-\u200a\u202f\u205f\u3000\xa0]+")
# what Java's trim removes
_CONTROLS = "".join(map(chr, range(33)))


def words(line: str, abbreviations: Mapping[str, int]) -> list[str]:
    """The words of a line. abbreviations: without full stop -> `ANYWHERE` or `BEFORE_NUMBER`."""
    line = _ALONE.sub(r" \g<0> ", f" {line.strip(_CONTROLS)} ")
    line = re.sub(r"\.{2,}", r" \g<0> ", line)
    for comma in ("([^0-9]),([^0-9])", "([0-9]),([^0-9])", "([^0-9]),([0-9])"):
        line = re.sub(comma, r"\1 , \2", line)
    line = re.sub("[`‘’]", "'", line)
    line = re.sub("[“”]|''", ' " ', line)
    line = line.replace("–", "-").replace("--", "-")
    line = _HYPHEN.sub(r"\1 \2", line)
    for apostrophe, apart in _APOSTROPHES.items():
        line = re.sub(apostrophe, apart, line)
    found = _split(line)
    following = [*found[1:], ""]
    line = " ".join(
        _full_stop(word, then, abbreviations) for word, then in zip(found, following, strict=False)
    )
    return _split(_WIDE_SPACES.sub(" ", line).strip(_CONTROLS).lower())


def _split(line: str) -> list[str]:
    return re.findall(r"[^ \t\n\f\r]+", line)


def _full_stop(word: str, then: str, abbreviations: Mapping[str, int]) -> str:
    """The word with its full stop, without it, or with a space before it. then: the next word."""
    start = word[:-1]
    if not word.endswith(".") or not start.strip("."):
        return word
    if "." in start and _ANY_LETTER.search(start):
        return word.replace(".", "")
    kind = abbreviations.get(start)
    if kind == ANYWHERE or "a" <= then[:1] <= "z":
        return word
    if kind == BEFORE_NUMBER and "0" <= then[:1] <= "9":
        return word
    return f"{start} ."


def read_abbreviations(text: str) -> dict[str, int]:
    """METEOR's list: one abbreviation per line, some followed by #NUMERIC_ONLY#."""
    found = {}
    for line in text.splitlines():
        parts = line.split()
        if parts and not parts[0].startswith("#"):
            found[parts[0]] = BEFORE_NUMBER if parts[1:2] == ["#NUMERIC_ONLY#"] else ANYWHERE
    return found
