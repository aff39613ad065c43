"""Two distances of token lists, a whole column of the usual table at a time: it lives in the bits of one integer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def places(tokens: Sequence[str]) -> dict[str, int]:
    """token -> an integer whose bit i is set where tokens[i] is that token."""
    found: dict[str, int] = {}
    for i, token in enumerate(tokens):
        found[token] = found.get(token, 0) | 1 << i
    return found


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence (Hyyrö 2004)."""
    where, full = places(a), (1 << len(a)) - 1
    rows = full
    for token in b:
        hits = rows & where.get(token, 0)
        rows = (rows + hits | rows - hits) & full
    return len(a) - rows.bit_count()


def levenshtein(where: Mapping[str, int], size: int, tokens: Sequence[str]) -> int:
    """Insertions, deletions and substitutions from tokens to a list of `size` whose `places` are given (Myers 1999)."""
    if size == 0:
        return len(tokens)
    full, last, distance = (1 << size) - 1, 1 << (size - 1), size
    up, down = full, 0  # where the column rises, and falls, by one
    for token in tokens:
        hits = where.get(token, 0)
        vertical = hits | down
        horizontal = (((hits & up) + up) ^ up) | hits
        right_up, right_down = down | ~(horizontal | up), up & horizontal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = right_up << 1 | 1, right_down << 1
        up, down = (right_down | ~(vertical | right_up)) & full, right_up & vertical & full
    return distance
