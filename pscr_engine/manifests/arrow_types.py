"""Arrow types that compute functions or Python can't hold, as types that they can."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def without_views(type_: pa.DataType) -> pa.DataType:
    """Return the type with plain text and bytes in place of views, at any depth: `take` has no kernel for views."""
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    return _rebuilt(type_, without_views)


def storable(type_: pa.DataType) -> pa.DataType:
    """Return the type that single values can be put back into a column as: Arrow can't for nested extension types.

    An extension type that is a plain value, such as a UUID, stays; any other becomes what it is stored as.
    """
    if isinstance(type_, pa.BaseExtensionType) and not pa.types.is_nested(type_.storage_type):
        return type_
    return _without_extensions(type_)


def stored(column: pa.Array) -> pa.Array:
    """Return the column as `storable` says.

    Raises:
        pa.ArrowException: Arrow can't convert it.
    """
    wanted = storable(column.type)
    return column if wanted == column.type else _cast(column, wanted)


def plain(column: pa.Array) -> pa.Array:
    """Return the column without views.

    Raises:
        pa.ArrowException: Arrow can't convert it.
    """
    wanted = without_views(column.type)
    if wanted == column.type:
        return column
    if isinstance(column, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(column.indices, plain(column.dictionary))
    return _cast(column, wanted)


def exact_values(column: pa.Array) -> list[Any]:
    """Return Python's values, with times as integers, and bytes for text that is not UTF-8, at any depth.

    Python's own times have no nanoseconds and end in the year 9999; with pandas installed Arrow gives others.
    """
    column = column.cast(_timeless(column.type), safe=False)
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return list(column.cast(_textless(column.type), safe=False).to_pylist())


def as_text(column: pa.Array) -> list[str | None]:
    """Return each value as text for people: as Python writes it, times that Python can't hold as Arrow does."""
    column = plain(column)
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = column.cast(pa.large_binary(), safe=False).to_pylist()
        return [None if value is None else value.decode("utf-8", "replace") for value in values]
    return [None if value is None else str(value) for value in _readable(column)]


def _readable(column: pa.Array) -> list[Any]:
    try:
        if not _has_nanoseconds(column.type):
            return list(column.to_pylist())
        return list(column.cast(_worded(column.type)).to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):  # a time beyond Python's, a zone nobody knows, no UTF-8
        return exact_values(column)


def _worded(type_: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_temporal(type_) else _rebuilt(type_, _worded)


def _timeless(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_temporal(type_) and not pa.types.is_interval(type_):
        return pa.int32() if type_.bit_width == 32 else pa.int64()
    return _rebuilt(type_, _timeless)


def _textless(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return pa.large_binary()
    return _rebuilt(type_, _textless)


def _has_nanoseconds(type_: pa.DataType) -> bool:
    if pa.types.is_temporal(type_):
        return getattr(type_, "unit", "") == "ns"
    return any(_has_nanoseconds(type_.field(index).type) for index in range(type_.num_fields))


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    # Not safe: text need not be UTF-8.
    return (column.storage if isinstance(column, pa.ExtensionArray) else column).cast(type_, safe=False)


def _without_extensions(type_: pa.DataType) -> pa.DataType:
    if isinstance(type_, pa.BaseExtensionType):
        return _without_extensions(type_.storage_type)
    return _rebuilt(type_, _without_extensions)


def _rebuilt(type_: pa.DataType, change: Any) -> pa.DataType:
    """Return the type with `change` applied to the types in it; the type itself if that changes nothing."""
    if isinstance(type_, pa.BaseExtensionType):
        storage = change(type_.storage_type)
        return type_ if storage == type_.storage_type else storage
    if pa.types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, change(type_.value_type), type_.ordered)
    fields = [type_.field(index) for index in range(type_.num_fields)]
    changed = [field.with_type(change(field.type)) for field in fields]
    if changed == fields:
        return type_
    if pa.types.is_struct(type_):
        return pa.struct(changed)
    if pa.types.is_map(type_):
        key, item = (field.with_type(change(field.type)) for field in (type_.key_field, type_.item_field))
        return pa.map_(key, item, keys_sorted=type_.keys_sorted)
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(changed[0], type_.list_size)
    large = pa.types.is_large_list(type_) or pa.types.is_large_list_view(type_)
    return pa.large_list(changed[0]) if large else pa.list_(changed[0])
