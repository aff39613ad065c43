"""String constants of a compiled Java class (JVM specification, chapter 4), which hold its data."""

from __future__ import annotations

import struct

# tag -> bytes of the constant after it; a Utf8 (1) has its own length
_SIZES = {
    **dict.fromkeys((7, 8, 16, 19, 20), 2),
    15: 3,
    **dict.fromkeys((3, 4, 9, 10, 11, 12, 17, 18), 4),
    **dict.fromkeys((5, 6), 8),
}
_UTF8, _STRING = 1, 8
_TWO_PLACES = (5, 6)


def string_constants(code: bytes) -> dict[str, str]:
    """Name of a static field -> its constant, for string constants. code: the bytes of a .class
    file."""
    texts, strings, at = _pool(code)
    # access flags, this class, the parent class
    at += 6
    (interfaces,) = struct.unpack_from(">H", code, at)
    at += 2 + 2 * interfaces
    (fields,) = struct.unpack_from(">H", code, at)
    at += 2
    found = {}
    for _ in range(fields):
        _, name, _, attributes = struct.unpack_from(">4H", code, at)
        at += 8
        for _ in range(attributes):
            kind, length = struct.unpack_from(">HI", code, at)
            at += 6
            if texts[kind] == "ConstantValue":
                (constant,) = struct.unpack_from(">H", code, at)
                if constant in strings:
                    found[texts[name]] = texts[strings[constant]]
            at += length
    return found


def _pool(code: bytes) -> tuple[dict[int, str], dict[int, int], int]:
    """The constant pool: index -> text, index of a string -> index of its text, and its end."""
    (count,) = struct.unpack_from(">H", code, 8)
    texts: dict[int, str] = {}
    strings: dict[int, int] = {}
    at, index = 10, 1
    while index < count:
        tag = code[at]
        at += 1
        if tag == _UTF8:
            (length,) = struct.unpack_from(">H", code, at)
            texts[index] = _modified_utf8(code[at + 2 : at + 2 + length])
            at += 2 + length
        else:
            if tag == _STRING:
                (strings[index],) = struct.unpack_from(">H", code, at)
            at += _SIZES[tag]
        index += 2 if tag in _TWO_PLACES else 1
    return texts, strings, at


def _modified_utf8(text: bytes) -> str:
    """Java writes NUL with two bytes, and each half of a surrogate pair alone."""
    return text.replace(b"\xc0\x80", b"\x00").decode("utf-8", "surrogatepass")
