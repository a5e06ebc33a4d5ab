"""Tell kinds of manifests apart by their files' names."""

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


def is_glob(text: str) -> bool:
    """Whether there are wildcards in it."""
    return not _GLOB_CHARACTERS.isdisjoint(text)


def open_table(where: object, file: ManifestFile, folder: Place, options: ManifestOptions) -> Manifest:
    """Open a single file by its name's extension.

    Args:
        where: what the user named.
        file: to read.
        folder: that relative paths start from.
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
    kinds = [name for name, found in (("Parquet files", parquet), ("tar shards", shards), ("images", images)) if found]
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
    """Whether a file's name says that it is Parquet."""
    return name.lower().endswith((".parquet", ".pq"))
