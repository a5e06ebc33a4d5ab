"""Opening of manifests, whose kind is recognised by their path."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from ..errors import ManifestError, option
from ..stores.uri import StorePath, place
from .base import Manifest, ManifestOptions
from .braces import expanded, has_range, no_shard
from .image_files import FileListManifest, files_below, is_apple_double, is_hidden, is_image
from .kinds import fixed_part, is_glob, is_parquet, open_table, refuse_mixture, refuse_tables
from .parquet import ParquetManifest
from .webdataset import WebDatasetManifest, is_shard


def open_manifest(manifest: str | Path, options: ManifestOptions | None = None) -> Manifest:
    """Open a Parquet, CSV or JSONL file, WebDataset shards, or a directory or glob of images.

    Raises:
        ManifestError: there is nothing there, it can't be read, or it lacks a column.
    """
    options = options or ManifestOptions()
    where = place(manifest, option("--manifest"))
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
            names = sorted(name for name in glob.glob(text, recursive=True) if not is_apple_double(name))
            if names and all(is_shard(name) for name in names):
                return WebDatasetManifest([Path(name) for name in names], options)
            if names and all(is_parquet(name) for name in names):
                common = Path(os.path.commonpath(names))
                folder = common if common.is_dir() else common.parent
                return ParquetManifest(common, [Path(name) for name in names], folder, options, fixed_part(text))
            refuse_tables(text, names)
            return FileListManifest.from_glob(text, names, options)
        if path.exists():
            raise ManifestError(
                f"{path}: not a regular file: the list is read more than once; write it to a file first"
            )
        if has_range(text):
            shards = [Path(name) for name in expanded(text)]
            if missing := next((shard for shard in shards if not shard.is_file()), None):
                raise no_shard(path, missing)
            return WebDatasetManifest(shards, options)
    except OSError as error:
        raise ManifestError(f"{error.filename or path}: {error.strerror or error}") from error
    raise ManifestError(f"{path}: no such file or directory")


def _open_directory(directory: Path, options: ManifestOptions) -> Manifest:
    """Open a directory of Parquet files, of shards, or of image files."""
    parquet, shards, images = [], [], []
    for name in files_below(directory):
        if is_hidden(name) and (is_parquet(name) or is_shard(name)):
            continue  # Spark's leftovers, for example
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
