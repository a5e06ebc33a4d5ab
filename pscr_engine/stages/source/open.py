"""Recognise what kind of manifest a path names."""

from __future__ import annotations

import glob
from pathlib import Path

from ...errors import ManifestError
from .base import Manifest, ManifestOptions
from .files import FileListManifest
from .parquet import ParquetManifest
from .text import CsvManifest, JsonLinesManifest

_GLOB_CHARACTERS = frozenset("*?[")


def open_manifest(manifest: str | Path, options: ManifestOptions | None = None) -> Manifest:
    """Open a Parquet, CSV or JSONL file, a directory of images or of Parquet files, or a glob of images.

    Raises:
        ManifestError: there is nothing there, it can't be read, or it lacks a column.
    """
    options = options or ManifestOptions()
    text, path = str(manifest), Path(manifest)
    try:
        if path.is_dir():
            parquet = sorted(path.rglob("*.parquet"))
            if parquet:
                return ParquetManifest(path, parquet, options)
            return FileListManifest.from_directory(path, options)
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
                "use .parquet, .csv, .tsv, .jsonl, a directory or a quoted glob"
            )
        if _GLOB_CHARACTERS & set(text):
            return FileListManifest.from_names(sorted(glob.glob(text, recursive=True)), f"glob {text}", options)
    except OSError as error:
        raise ManifestError(f"{error.filename or path}: {error.strerror or error}") from error
    raise ManifestError(f"{path}: no such file or directory")
