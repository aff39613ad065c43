"""Pieces: the token ids of an example as text that can be read, with the marks of the tokens."""

from __future__ import annotations

from collections.abc import Sequence

from lorakit.tokenizer import Tokenizer

BYTES_PER_CHARACTER = 4
"""Most bytes of a UTF-8 character, and so most byte-level tokens of which it is made."""
HALF = "\ufffd"
"""What a tokenizer decodes to where a character is not complete."""


def marked_pieces(
    tokenizer: Tokenizer, ids: Sequence[int], marks: Sequence[bool]
) -> list[tuple[str, bool]]:
    """Texts whose concatenation is the decoded example, each with its mark.

    A piece is one token, or the tokens that make one character, such as the four of an emoji; it is
    marked if one of them is. Spaces are those of the text, not of the token's own spelling.
    """
    pieces = []
    window, done = 0, 0
    for end in range(1, len(ids) + 1):
        # what a token adds depends on its neighbour: "##s" is joined to it, " a" keeps its space
        before = _decoded(tokenizer, ids[window:done])
        text = _decoded(tokenizer, ids[window:end])
        incomplete = text.endswith(HALF) and end - done < BYTES_PER_CHARACTER
        if incomplete and end < len(ids):
            continue
        pieces.append((text[len(before) :], any(marks[done:end])))
        window, done = done, end
    return pieces


def _decoded(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    # the clean-up would remove spaces before punctuation that the text has
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)) if ids else ""
