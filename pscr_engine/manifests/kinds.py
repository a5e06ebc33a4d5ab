"""Kinds of manifests, told apart by their files' names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sized
from pathlib import Path

from ..errors import ManifestError
from ..stores.uri import Place
from .base import Manifest, ManifestFile, ManifestOptions
from .parquet import ParquetManifest
from .text import CsvManifest, JsonLinesManifest
from .webdataset import WebDatasetManifest, is_shard

_GLOB_CHARACTERS = frozenset("*?[")
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


def open_table(where: object, file: ManifestFile, folder: Place, options: ManifestOptions) -> Manifest:
    """Open a manifest that is a single file; its extension tells the kind.

    Args:
        where: what the user named.
        file: the file to read.
        folder: the folder that relative paths start from.
        options: how to read it.

    Raises:
        ManifestError: it is of no known kind, or can't be read.
    """
    if is_shard(file.name):
        return WebDatasetManifest([file], options)
    suffix = os.path.splitext(file.name)[1]  # noqa: PTH122 - objects have no suffix
    match suffix.lower():
        case ".parquet" | ".pq":
            return ParquetManifest(file if isinstance(file, Path) else file.path, [file], folder, options)
        case ".csv":
            return CsvManifest(file, ",", options)
        case ".tsv":
            return CsvManifest(file, "\t", options)
        case ".jsonl" | ".ndjson":
            return JsonLinesManifest(file, options)
    raise ManifestError(
        f"{where}: unknown kind of manifest {suffix or '(no extension)'!r}; "
        "use .parquet, .csv, .tsv, .jsonl, .tar, a directory or a quoted glob"
    )


def refuse_mixture(directory: object, *, parquet: Sized, shards: Sized, images: Sized) -> None:
    """Raise ManifestError if a directory holds more than one kind of list; to choose one would be a guess."""
    kinds = [name for name, files in (("Parquet files", parquet), ("tar shards", shards), ("images", images)) if files]
    if len(kinds) > 1:
        raise ManifestError(
            f"{directory}: holds {' and '.join(kinds)}; "
            f"say which with a quoted glob, '{directory}/**/*.png' for example"
        )


def refuse_tables(pattern: str, names: Iterable[str]) -> None:
    """Raise ManifestError if a glob matches a table of paths."""
    if table := next((name for name in names if name.lower().endswith(_TABLES)), None):
        raise ManifestError(f"glob {pattern}: matches the table {table}; name one table, without wildcards")


def is_parquet(name: str) -> bool:
    """Tell whether a file has an extension of Parquet."""
    return name.lower().endswith((".parquet", ".pq"))


def is_glob(text: str) -> bool:
    """Tell whether there are wildcards in a path."""
    return not _GLOB_CHARACTERS.isdisjoint(text)
