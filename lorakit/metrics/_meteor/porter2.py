"""The Porter2 stemmer of English (M. F. Porter 2002, snowballstem.org), in the version of 2010 that
METEOR 1.5 uses.

R1 is the region after the first consonant that follows a vowel, and R2 is the same region of R1. A
step takes the longest of its endings that the word has. If that ending may not be removed, a
shorter one is not tried.
"""

from __future__ import annotations

import re
from functools import lru_cache


def _table(pairs: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in pairs.split())


_EXCEPTIONS = _table(
    "skis:ski skies:sky dying:die lying:lie tying:tie idly:idl gently:gentl ugly:ugli early:earli "
    "only:onli singly:singl sky:sky news:news howe:howe atlas:atlas cosmos:cosmos bias:bias "
    "andes:andes"
)
_AFTER_PLURAL = frozenset("inning outing canning herring earring proceed exceed succeed".split())
_CONSONANT_AFTER_VOWEL = re.compile(r"[aeiouy][^aeiouy]")
_STEM_OF_R1 = re.compile("gener|commun|arsen")
_VOWEL = re.compile("[aeiouy]")
_SHORT = re.compile(r"(?:[^aeiouy][aeiouy][^aeiouywxY]|^[aeiouy][^aeiouy])$")
_STEP_2 = _table(
    "tional:tion enci:ence anci:ance abli:able entli:ent izer:ize ization:ize ational:ate "
    "ation:ate ator:ate alism:al aliti:al alli:al fulness:ful ousli:ous ousness:ous iveness:ive "
    "iviti:ive biliti:ble bli:ble ogi:og fulli:ful lessli:less li:"
)
_STEP_3 = _table("tional:tion ational:ate alize:al icate:ic iciti:ic ical:ic ful: ness: ative:")
_STEP_4 = "al ance ence er ic able ible ant ement ment ent ism ate iti ous ive ize ion".split()


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The stem of a word in lower case."""
    if word in _EXCEPTIONS:
        return _EXCEPTIONS[word]
    if len(word) <= 2:
        return word
    word = word.removeprefix("'")
    # a y that sounds like a consonant
    word = re.sub("([aeiouy])y", r"\1Y", re.sub("^y", "Y", word))
    r1, r2 = _regions(word)
    word = _plural(_ending(word, ("'s'", "'s", "'"), ""))
    if word in _AFTER_PLURAL:
        return word
    word = _participle(word, r1)
    if len(word) > 2 and word[-1] in "yY" and not _VOWEL.match(word[-2]):
        word = word[:-1] + "i"
    return _last_letter(_derived(word, r1, r2), r1, r2).replace("Y", "y")


def _regions(word: str) -> tuple[int, int]:
    """The starts of R1 and R2."""
    known = _STEM_OF_R1.match(word)
    r1 = known.end() if known else _after(word, 0)
    return r1, _after(word, r1)


def _after(word: str, start: int) -> int:
    found = _CONSONANT_AFTER_VOWEL.search(word, start)
    return found.end() if found else len(word)


def _ending(word: str, endings: tuple[str, ...], instead: str) -> str:
    for ending in endings:
        if word.endswith(ending):
            return word[: -len(ending)] + instead
    return word


def _longest(word: str, endings: dict[str, str]) -> str | None:
    found = [ending for ending in endings if word.endswith(ending)]
    return max(found, key=len, default=None)


def _plural(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and _VOWEL.search(word[:-2]):
        return word[:-1]
    return word


def _participle(word: str, r1: int) -> str:
    for ending in ("eedly", "eed"):
        if word.endswith(ending):
            at = len(word) - len(ending)
            return word[:at] + "ee" if at >= r1 else word
    for ending in ("ingly", "edly", "ing", "ed"):
        if word.endswith(ending):
            start = word[: -len(ending)]
            return _restored(start, r1) if _VOWEL.search(start) else word
    return word


def _restored(word: str, r1: int) -> str:
    """The word from what is left of a participle."""
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if re.search(r"([bdfgmnprt])\1$", word):
        return word[:-1]
    if r1 >= len(word) and _SHORT.search(word):
        return word + "e"
    return word


def _derived(word: str, r1: int, r2: int) -> str:
    """The word without the endings of steps 2, 3 and 4."""
    ending = _longest(word, _STEP_2)
    if ending and len(word) - len(ending) >= r1:
        start = word[: -len(ending)]
        if _may_follow(ending, start):
            word = start + _STEP_2[ending]
    ending = _longest(word, _STEP_3)
    if ending and len(word) - len(ending) >= (r2 if ending == "ative" else r1):
        word = word[: -len(ending)] + _STEP_3[ending]
    ending = _longest(word, dict.fromkeys(_STEP_4, ""))
    if ending and len(word) - len(ending) >= r2:
        start = word[: -len(ending)]
        if ending != "ion" or start.endswith(("s", "t")):
            word = start
    return word


def _may_follow(ending: str, start: str) -> bool:
    if ending == "ogi":
        return start.endswith("l")
    if ending == "li":
        return start.endswith(tuple("cdeghkmnrt"))
    return True


def _last_letter(word: str, r1: int, r2: int) -> str:
    at = len(word) - 1
    if word.endswith("e") and (at >= r2 or (at >= r1 and not _SHORT.search(word[:-1]))):
        return word[:-1]
    if word.endswith("ll") and at >= r2:
        return word[:-1]
    return word
