"""Keys of images: 128 bits each, from what tells that two rows' images are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_BYTES = 16
Flags = NDArray[np.bool_]


class Keys(NamedTuple):
    """Keys of n images, in halves that are sorted and compared as numbers.

    Args:
        high: uint64 [n], the first half.
        low: uint64 [n], the second half.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]

    @classmethod
    def empty(cls, count: int) -> Keys:
        """Make keys of rows that have none."""
        return cls(np.zeros(count, np.uint64), np.zeros(count, np.uint64))


def keys_of(digests: Sequence[bytes | None]) -> tuple[Keys, Flags]:
    """Make keys of the first 16 bytes of digests; return them, and which there are."""
    joined = b"".join(bytes(_BYTES) if digest is None else digest[:_BYTES] for digest in digests)
    halves = np.frombuffer(joined, ">u8").astype(np.uint64).reshape(-1, 2)
    has = np.array([digest is not None for digest in digests], np.bool_)
    return Keys(np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])), has


def keys_of_binary(column: pa.Array) -> tuple[Keys, Flags]:
    """Make keys of a column of digests; return them, and which rows have one."""
    has = column.is_valid().to_numpy(zero_copy_only=False).astype(np.bool_)
    width = column.type.byte_width
    filled = column.fill_null(bytes(width))
    raw = np.frombuffer(filled.buffers()[1], np.uint8)[filled.offset * width : (filled.offset + len(filled)) * width]
    halves = np.ascontiguousarray(raw.reshape(-1, width)[:, :_BYTES]).view(">u8").astype(np.uint64)
    return Keys(np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])), has


def id_keys(values: Sequence[Any]) -> tuple[Keys, Flags]:
    """Make keys of identifiers, as they come out of a part; return them, and which rows have one."""
    return keys_of([_of_id(value) for value in values])


def _of_id(value: Any) -> bytes | None:
    # What was not Unicode has become question marks: which identifier it was is not known any more.
    if value is None or (isinstance(value, str) and "\ufffd" in value) or value != value:
        return None
    return hashlib.blake2b(
        f"{type(value).__name__}:{value!r}".encode("utf-8", "backslashreplace"), digest_size=_BYTES
    ).digest()


def id_kind(kind: pa.DataType) -> str:
    """Name the kind of identifiers of a type: those of one kind can be compared."""
    types = pa.types
    if types.is_integer(kind):
        return "integer"
    return "text" if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) else str(kind)
