"""Recognise what kind of manifest a path names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sized
from pathlib import Path

from ...errors import ManifestError
from ...stores.uri import Place, StorePath, place
from .base import Manifest, ManifestFile, ManifestOptions
from .files import FileListManifest, files_below, is_image
from .parquet import ParquetManifest
from .text import CsvManifest, JsonLinesManifest
from .webdataset import WebDatasetManifest, is_shard

_GLOB_CHARACTERS = frozenset("*?[")
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")


def is_glob(text: str) -> bool:
    """Whether there are wildcards in it."""
    return not _GLOB_CHARACTERS.isdisjoint(text)


def open_manifest(manifest: str | Path, options: ManifestOptions | None = None) -> Manifest:
    """Open a Parquet, CSV or JSONL file, WebDataset shards, or a directory or glob of images.

    Raises:
        ManifestError: there is nothing there, it can't be read, or it lacks a column.
    """
    options = options or ManifestOptions()
    where = place(manifest, "--manifest")
    if isinstance(where, StorePath):
        from .stored import open_stored

        return open_stored(where, options, directory=str(manifest).endswith("/"))
    text, path = str(where), where
    try:
        if path.is_dir():
            return _open_directory(path, options)
        if path.is_file():
            return open_table(path, path, path.parent, options)
        if is_glob(text):
            names = sorted(glob.glob(text, recursive=True))
            if names and all(is_shard(name) for name in names):
                return WebDatasetManifest([Path(name) for name in names], options)
            if names and all(is_parquet(name) for name in names):
                common = Path(os.path.commonpath(names))
                folder = common if common.is_dir() else common.parent
                return ParquetManifest(common, [Path(name) for name in names], folder, options)
            refuse_tables(text, names)
            return FileListManifest.from_glob(text, names, options)
    except OSError as error:
        raise ManifestError(f"{error.filename or path}: {error.strerror or error}") from error
    raise ManifestError(f"{path}: no such file or directory")


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


def _open_directory(directory: Path, options: ManifestOptions) -> Manifest:
    """A directory of Parquet files, of shards, or of image files."""
    parquet, shards, images = [], [], []
    for name in files_below(directory):
        if is_parquet(name):
            parquet.append(directory / name)
        elif is_shard(name):
            shards.append(directory / name)
        elif is_image(name):
            images.append(name)
    refuse_mixture(directory, parquet=parquet, shards=shards, images=images)
    if parquet:
        return ParquetManifest(directory, sorted(parquet), directory, options)
    if shards:
        return WebDatasetManifest(sorted(shards), options)
    return FileListManifest.from_directory(directory, sorted(images), options)
