"""Stored values: a sequence of values in a temporary file instead of in memory, 12 bytes a value.

The file has no name: it is in the system's temporary folder (TMPDIR) and ends with the process.
"""

from __future__ import annotations

import json
import os
import tempfile
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")
FEW = 10_000
"""Values up to this number are held in memory."""
BLOCK_BYTES = 1 << 20


class RowSequence(Sequence[Value], ABC, Generic[Value]):
    """A sequence whose values are made when they are asked for. A slice is a list of them."""

    @abstractmethod
    def _made(self, row: int) -> Value:
        """The value of a row, from 0 to the length."""

    @overload
    def __getitem__(self, place: int) -> Value: ...
    @overload
    def __getitem__(self, place: slice) -> list[Value]: ...
    def __getitem__(self, place: int | slice) -> Value | list[Value]:
        if isinstance(place, slice):
            return [self._made(row) for row in range(*place.indices(len(self)))]
        row = place + len(self) if place < 0 else place
        if not 0 <= row < len(self):
            raise IndexError(f"row {place} of {len(self)}")
        return self._made(row)

    def __iter__(self) -> Iterator[Value]:
        return map(self._made, range(len(self)))


def spread(values: Sequence[Value], most: int) -> list[Value]:
    """At most `most` of the values, from all parts of their order: a file may be sorted."""
    count = min(most, len(values))
    return [values[i * len(values) // count] for i in range(count)]


def values_of(count: int) -> Any:
    """Room for this number of JSON values, which are set in any order: a list, or in a file."""
    return [None] * count if count <= FEW else StoredValues(count)


def stored(values: Iterable[Value]) -> Sequence[Value]:
    """JSON values as they come: a list, or in a file."""
    rest = iter(values)
    first = list(islice(rest, FEW + 1))
    if len(first) <= FEW:
        return first
    found: StoredValues[Value] = StoredValues(0)
    for value in chain(first, rest):
        found.append(value)
    return found


def mapped(values: Sequence[Any], make: Callable[[Any, int], Value]) -> Sequence[Value]:
    """`make(value, its number)` of each: a list, or of many values made whenever one is read."""
    if len(values) <= FEW:
        return [make(value, number) for number, value in enumerate(values)]
    return MappedValues(values, make)


class MappedValues(RowSequence[Value]):
    """A function of each value of a sequence, called whenever one is read."""

    def __init__(self, values: Sequence[Any], make: Callable[[Any, int], Value]):
        self._values = values
        self._make = make

    def __len__(self) -> int:
        return len(self._values)

    def _made(self, row: int) -> Value:
        return self._make(self._values[row], row)


class StoredValues(RowSequence[Value]):
    """A sequence of JSON values in a file, set in any order; None where none was set.

    count: how many there are. OSError: the disk is full.
    """

    def __init__(self, count: int):
        self._starts = array("q", bytes(8 * count))
        self._sizes = array("i", bytes(4 * count))
        # it is open as long as this object lives
        self._file = tempfile.TemporaryFile(prefix="lorakit-")  # noqa: SIM115
        self._unwritten = bytearray()
        self._written = 0

    def __len__(self) -> int:
        return len(self._starts)

    def __setitem__(self, place: int, value: Value) -> None:
        # ASCII, because a text may hold half of a surrogate pair
        data = json.dumps(value).encode()
        self._starts[place] = self._written + len(self._unwritten)
        self._sizes[place] = len(data)
        self._unwritten += data
        if len(self._unwritten) >= BLOCK_BYTES:
            self._flush()

    def append(self, value: Value) -> None:
        """Add a value after the last one."""
        self._starts.append(0)
        self._sizes.append(0)
        self[len(self) - 1] = value

    def _flush(self) -> None:
        self._file.write(self._unwritten)
        self._file.flush()
        self._written += len(self._unwritten)
        self._unwritten.clear()

    def _made(self, row: int) -> Value:
        size = self._sizes[row]
        if not size:
            return None  # type: ignore[return-value]
        if self._unwritten:
            self._flush()
        return json.loads(os.pread(self._file.fileno(), size, self._starts[row]))
