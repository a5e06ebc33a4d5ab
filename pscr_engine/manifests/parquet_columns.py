"""The columns of Parquet files that need not agree on all of them, and those that names of folders give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from ..errors import ManifestError, one_line
from .arrow_types import without_views
from .base import ManifestFile
from .unicode import utf8

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


class FileColumns:
    """The columns of several Parquet files, by name, whatever their order. Files with the same columns count as one."""

    def __init__(self) -> None:
        self._seen: dict[pa.Schema, ManifestFile] = {}

    def add(self, file: ManifestFile, schema: pa.Schema) -> None:
        """Take in the columns of one more file."""
        self._seen.setdefault(schema.remove_metadata(), file)

    def __iter__(self) -> Iterator[tuple[ManifestFile, pa.Schema]]:
        """Yield the different schemas, each with the first file that has it."""
        return ((file, schema) for schema, file in self._seen.items())

    @property
    def names(self) -> list[str]:
        """Return all names, in the order in which they first appear; those that a file has twice, twice."""
        counts: Counter[str] = Counter()
        for schema in self._seen:
            counts |= Counter(schema.names)
        ordered = dict.fromkeys(name for schema in self._seen for name in schema.names)
        return [name for name in ordered for _ in range(counts[name])]

    def field(self, name: str) -> pa.Field:
        """Return a column's name and the type that can hold every file's values.

        Raises:
            ManifestError: there is no such type.
        """
        having = [schema for schema in self._seen if name in schema.names]
        nullable = len(having) < len(self._seen) or any(schema.field(name).nullable for schema in having)
        type_ = self._united(name, self._types(name))
        return having[0].field(name).with_type(type_).with_nullable(nullable)

    def identifier_type(self, name: str) -> pa.DataType:
        """Return the type of an identifier column, without views and dictionaries.

        Raises:
            ManifestError: the files' types differ in more than their width.
        """
        types: dict[pa.DataType, ManifestFile] = {}
        for type_, file in self._types(name).items():
            types.setdefault(unpacked(type_), file)
        stated = [type_ for type_ in types if not pa.types.is_null(type_)]
        for type_ in stated:
            if _family(type_) != _family(stated[0]):
                raise _differ(name, types, stated[0], type_)
            if type_ == pa.uint64() and (signed := next(filter(pa.types.is_signed_integer, stated), None)):
                raise _differ(name, types, type_, signed)
        return self._united(name, types)

    def _types(self, name: str) -> dict[pa.DataType, ManifestFile]:
        """Return the types that a column has, each with the first file that has it."""
        types: dict[pa.DataType, ManifestFile] = {}
        for file, schema in self:
            if name in schema.names:
                types.setdefault(schema.field(name).type, file)
        return types

    @staticmethod
    def _united(name: str, types: Mapping[pa.DataType, ManifestFile]) -> pa.DataType:
        if len(types) == 1:
            return next(iter(types))
        united = pa.null()
        for type_ in types:
            plain = unpacked(type_)
            try:
                if {"text", "bytes"} == {_family(united), _family(plain)}:
                    raise pa.ArrowTypeError("text need not be what its bytes are")
                both = [pa.schema([(name, each)]) for each in (united, plain)]
                united = pa.unify_schemas(both, promote_options="permissive").field(0).type
            except pa.ArrowException as error:
                before = next(each for each in types if not pa.types.is_null(each))
                raise _differ(name, types, before, type_) from error
        return united


def _differ(
    name: str, types: Mapping[pa.DataType, ManifestFile], first: pa.DataType, other: pa.DataType
) -> ManifestError:
    return ManifestError(
        f"{types[other]}: its column {name!r} holds {other}, that of {types[first]} {first}; "
        "store it as one type in all files"
    )


def fitted(column: pa.Array, type_: pa.DataType, name: str, path: object) -> pa.Array:
    """Return a column as the type that all files' values have in common.

    Raises:
        ManifestError: a value would be lost.
    """
    if column.type == type_:
        return column
    try:
        return (column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column).cast(type_)
    except pa.ArrowException as error:
        raise ManifestError(
            f"{path}: its column {name!r} holds {column.type} that can't become {type_}, as other files have it "
            f"({one_line(error, 200)}); store it as one type in all files"
        ) from error


def unpacked(type_: pa.DataType) -> pa.DataType:
    """Return the type without views, which Arrow can't sort, and without a dictionary."""
    return without_views(type_.value_type if pa.types.is_dictionary(type_) else type_)


def folder_values(relative: str) -> dict[str, str | None]:
    """Return what the folders of a file say of its rows, as text: Hive's NAME=VALUE. The innermost of a name counts.

    Args:
        relative: the file's name, from the folder that the list is in.
    """
    found: dict[str, str | None] = {}
    for folder in relative.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            found[utf8(unquote(name)) or ""] = None if value == _NO_VALUE else utf8(unquote(value))
    return found


def is_text(type_: pa.DataType) -> bool:
    """Tell whether a type is text, of any width."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def is_bytes(type_: pa.DataType) -> bool:
    """Tell whether a type is bytes, of any length."""
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_))


def _family(type_: pa.DataType) -> Any:
    """Return what types that differ in their width alone have in common; for others, the type."""
    if is_text(type_):
        return "text"
    if is_bytes(type_):
        return "bytes"
    if pa.types.is_integer(type_):
        return "integers"
    return "floats" if pa.types.is_floating(type_) else type_
