"""Recognise what kind of manifest a path names."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from ...errors import ManifestError
from .base import Manifest, ManifestOptions
from .files import FileListManifest, files_below, is_image
from .parquet import ParquetManifest
from .text import CsvManifest, JsonLinesManifest
from .webdataset import WebDatasetManifest, is_shard

_GLOB_CHARACTERS = frozenset("*?[")


def open_manifest(manifest: str | Path, options: ManifestOptions | None = None) -> Manifest:
    """Open a Parquet, CSV or JSONL file, WebDataset shards, or a directory or glob of images.

    Raises:
        ManifestError: there is nothing there, it can't be read, or it lacks a column.
    """
    options = options or ManifestOptions()
    text, path = str(manifest), Path(manifest)
    try:
        if path.is_dir():
            return _open_directory(path, options)
        if path.is_file() and is_shard(path.name):
            return WebDatasetManifest([path], options)
        if path.is_file():
            match path.suffix.lower():
                case ".parquet" | ".pq":
                    return ParquetManifest(path, [path], options)
                case ".csv":
                    return CsvManifest(path, ",", options)
                case ".tsv":
                    return CsvManifest(path, "\t", options)
                case ".jsonl" | ".ndjson":
                    return JsonLinesManifest(path, options)
            raise ManifestError(
                f"{path}: unknown kind of manifest {path.suffix or '(no extension)'!r}; "
                "use .parquet, .csv, .tsv, .jsonl, .tar, a directory or a quoted glob"
            )
        if _GLOB_CHARACTERS & set(text):
            names = sorted(glob.glob(text, recursive=True))
            if names and all(is_shard(name) for name in names):
                return WebDatasetManifest([Path(name) for name in names], options)
            if names and all(_is_parquet(name) for name in names):
                return ParquetManifest(Path(os.path.commonpath(names)), [Path(name) for name in names], options)
            if tables := [name for name in names if name.lower().endswith((".csv", ".tsv", ".jsonl", ".ndjson"))]:
                raise ManifestError(f"glob {text}: matches the table {tables[0]}; name one table, without wildcards")
            return FileListManifest.from_glob(text, names, options)
    except OSError as error:
        raise ManifestError(f"{error.filename or path}: {error.strerror or error}") from error
    raise ManifestError(f"{path}: no such file or directory")


def _open_directory(directory: Path, options: ManifestOptions) -> Manifest:
    """A directory of Parquet files, of shards, or of image files; a mixture would be a guess."""
    parquet, shards, images = [], [], []
    for name in files_below(directory):
        if _is_parquet(name):
            parquet.append(directory / name)
        elif is_shard(name):
            shards.append(directory / name)
        elif is_image(name):
            images.append(name)
    kinds = [name for name, found in (("Parquet files", parquet), ("tar shards", shards), ("images", images)) if found]
    if len(kinds) > 1:
        raise ManifestError(
            f"{directory}: holds {' and '.join(kinds)}; "
            f"say which with a quoted glob, '{directory}/**/*.png' for example"
        )
    if parquet:
        return ParquetManifest(directory, sorted(parquet), options)
    if shards:
        return WebDatasetManifest(sorted(shards), options)
    return FileListManifest.from_directory(directory, sorted(images), options)


def _is_parquet(name: str) -> bool:
    return name.lower().endswith((".parquet", ".pq"))
