"""The tokeniser of CoreNLP 3.4.1, run from its own tables.

PTBTokenizer is a finite automaton whose tables JFlex packed into string constants of a class. They
are read from the installed package, so a token ends where the Java program ends it. What a rule
does to the text of its token is written here: quotation marks as in TeX, brackets as -LRB-,
currencies as # and $, dashes as --, and soft hyphens removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

NEW_LINE = "*NL*"
# the start state of the program's default, which is the Treebank's older conventions
_FIRST = 2
# bits of a state's attribute: a token may end here; no transition leads out of it
_FINAL, _STOP = 1, 8
_SPACES = frozenset(" \t\n\x0b\x0c\r\x85")
_SIGMA = re.compile(r"Σ(?=[\d_]+(\w))")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


class Automaton(NamedTuple):
    """The next state is `following[rows[state] + classes[character]]`, or -1."""

    classes: list[int]
    rows: list[int]
    following: list[int]
    actions: list[int]
    attributes: list[int]


class Rule(NamedTuple):
    """The changes to a match, in the order of the fields."""

    write: Callable[[str], str] = str
    context: tuple[int, int] | None = None
    """The match includes what must follow the token. Start states of the automaton for the token,
    and of the one for what follows, which is read backwards."""
    trim: bool = False
    """White space at the end returns to the input."""
    back: int = 0
    """Number of characters that return to the input."""
    shared: int = 0
    """The token also keeps what returns to the input if it is at least as long as this: a full stop
    ends both `Inc.` and a sentence."""
    first: bool = False
    """Only the first character is the token."""


def unpacked(constants: dict[str, str]) -> Automaton:
    """The automaton from the constants of its class."""
    parts = sorted(name for name in constants if name.startswith("ZZ_TRANS_PACKED"))
    rows = constants["ZZ_ROWMAP_PACKED_0"]
    return Automaton(
        _runs(constants["ZZ_CMAP_PACKED"]),
        [high << 16 | low for high, low in _pairs(rows)],
        [state - 1 for part in parts for state in _runs(constants[part])],
        _runs(constants["ZZ_ACTION_PACKED_0"]),
        _runs(constants["ZZ_ATTRIBUTE_PACKED_0"]),
    )


def _pairs(packed: str) -> Iterator[tuple[int, int]]:
    numbers = [ord(character) for character in packed]
    return zip(numbers[::2], numbers[1::2], strict=True)


def _runs(packed: str) -> list[int]:
    found: list[int] = []
    for count, value in _pairs(packed):
        found += [value] * count
    return found


def lines(automaton: Automaton, text: str) -> list[list[str]]:
    """The tokens of each line in lower case. Every line ends in a line feed: a token may depend on
    the next line."""
    units = _ASTRAL.sub(_halves, text)
    found: list[list[str]] = [[]]
    for token in _tokens(automaton, units):
        if token == NEW_LINE:
            found.append([])
        else:
            found[-1].append(_lower(_joined(token)))
    return found[:-1]


def _halves(match: re.Match[str]) -> str:
    """A character beyond U+FFFF as the two that Java has for it."""
    point = ord(match[0]) - 0x10000
    return chr(0xD800 + (point >> 10)) + chr(0xDC00 + (point & 0x3FF))


def _joined(token: str) -> str:
    if token.isascii():
        return token
    # half a character becomes a question mark
    joined = token.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return joined.encode(errors="replace").decode()


def _lower(token: str) -> str:
    # to Python a capital sigma before digits ends its word, even if letters follow
    return _SIGMA.sub(_sigma, token).lower() if "Σ" in token else token.lower()


def _sigma(match: re.Match[str]) -> str:
    return match[0] if match[1].lower() == match[1].upper() else "σ"


def _tokens(automaton: Automaton, text: str) -> Iterator[str]:
    known = automaton.classes
    classes = bytes([known[ord(character)] for character in text])
    start = 0
    while start < len(text):
        action, end = _longest(automaton, classes, start)
        if action in _SKIPPED:
            start = end
            continue
        rule = _RULES.get(action, _PLAIN)
        if rule.context:
            end = _before(automaton, classes, start, end, rule.context)
        if rule.trim:
            while end > start and text[end - 1] in _SPACES:
                end -= 1
        if rule.first:
            end = start + 1
        kept = end
        end -= rule.back
        if not rule.shared or kept - start < rule.shared:
            kept = end
        yield rule.write(text[start:kept])
        start = end


def _longest(automaton: Automaton, classes: bytes, start: int) -> tuple[int, int]:
    """The action of the longest match, and its end."""
    _, rows, following, actions, attributes = automaton
    state, action, end = _FIRST, _UNKNOWN, start + 1
    for at in range(start, len(classes)):
        state = following[rows[state] + classes[at]]
        if state < 0:
            break
        attribute = attributes[state]
        if attribute & _FINAL:
            action, end = actions[state], at + 1
            if attribute & _STOP:
                break
    return action, end


def _before(
    automaton: Automaton, classes: bytes, start: int, end: int, context: tuple[int, int]
) -> int:
    """The latest place where the token can end and what must follow it can begin."""
    _, rows, following, _, attributes = automaton
    state, token = context[0], set()
    for at in range(start, end + 1):
        if attributes[state] & _FINAL:
            token.add(at)
        if at == end:
            break
        state = following[rows[state] + classes[at]]
        if state < 0:
            break
    state = context[1]
    while not (attributes[state] & _FINAL and end in token):
        end -= 1
        state = following[rows[state] + classes[end]]
    return end


def _without_soft_hyphens(text: str) -> str:
    return text.replace("\xad", "") or "-" if "\xad" in text else text


def _replacing(*pairs: tuple[str, str]) -> Callable[[str], str]:
    table = dict(pairs)
    pattern = re.compile("|".join(map(re.escape, table)))
    return lambda text: pattern.sub(lambda match: table[match[0]], text)


_OPENING = [(mark, "`") for mark in "\x91‘‛‹"] + [(mark, "``") for mark in "\x93“«"]
_CLOSING = [(mark, "'") for mark in "\x92’›"] + [(mark, "''") for mark in "\x94”»"]
_quotes = _replacing(("&apos;", "'"), ("&quot;", "''"), ('"', "''"), *_OPENING, *_CLOSING)
_ASCII_OPENING = [("&apos;", "`"), ("&quot;", "``"), ('"', "``"), ("'", "`")]
_opening_quotes = _replacing(*_ASCII_OPENING, *_OPENING, *_CLOSING)
_currency = _replacing(("¢", "cents"), ("£", "#"), *((sign, "$") for sign in "\x80¤₠€"))
_fractions = _replacing(("¼", "1/4"), ("½", "1/2"), ("¾", "3/4"), ("⅓", "1/3"), ("⅔", "2/3"))
_brackets = _replacing(("(", "-LRB-"), (")", "-RRB-"))
_spaces = _replacing((" ", "\xa0"))
_AMPERSAND = re.compile("&amp;", re.IGNORECASE)


def _ampersand(text: str) -> str:
    return _AMPERSAND.sub("&", text)


def _dashes(text: str) -> str:
    return "--" if len(text) in (3, 4) else text


def _spaces_and_brackets(text: str) -> str:
    return _brackets(_spaces(text))


def _always(text: str) -> Callable[[str], str]:
    return lambda _: text


_UNKNOWN = 1
_SKIPPED = frozenset((_UNKNOWN, 7, 23))
_PLAIN = Rule()
_RULES = {
    2: Rule(_always("<")),
    4: Rule(_dashes),
    5: Rule(_always(NEW_LINE)),
    6: Rule(_without_soft_hyphens),
    8: Rule(_quotes),
    10: Rule(_always(">")),
    11: Rule(_always("--")),
    12: Rule(_without_soft_hyphens),
    13: Rule(_always("...")),
    14: Rule(_fractions),
    15: Rule(_currency),
    16: Rule(_always("-RCB-")),
    17: Rule(_always("-LRB-")),
    18: Rule(_always("-RRB-")),
    20: Rule(_always("-LCB-")),
    21: Rule(_always("-RSB-")),
    22: Rule(_always("-LSB-")),
    24: Rule(context=(13, 14)),
    25: Rule(back=1),
    26: Rule(_opening_quotes, back=1),
    27: Rule(_spaces),
    28: Rule(_brackets),
    29: Rule(_without_soft_hyphens),
    30: Rule(_without_soft_hyphens, context=(3, 4)),
    32: Rule(_without_soft_hyphens, back=1),
    33: Rule(back=1, shared=1),
    34: Rule(_brackets, back=1),
    35: Rule(_opening_quotes, first=True),
    36: Rule(_quotes, back=1),
    37: Rule(_ampersand),
    38: Rule(_spaces),
    39: Rule(_spaces),
    40: Rule(_without_soft_hyphens, context=(5, 6)),
    41: Rule(context=(16, 17)),
    42: Rule(back=2),
    43: Rule(context=(15, 14)),
    44: Rule(context=(9, 10), trim=True),
    46: Rule(_without_soft_hyphens, back=1),
    47: Rule(context=(7, 8), trim=True, back=1, shared=3),
    48: Rule(back=2),
    49: Rule(context=(11, 12), back=1, shared=1),
    50: Rule(back=3),
    51: Rule(_ampersand, back=1),
    53: Rule(back=4),
    54: Rule(_spaces_and_brackets),
}
