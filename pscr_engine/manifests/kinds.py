"""Kinds of manifests, told apart by their files' names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..errors import ManifestError
from ..stores.uri import Place
from .base import Manifest, ManifestFile, ManifestOptions
from .image_files import FileListManifest, is_image
from .parquet import ParquetManifest
from .path_list import PathListManifest
from .text import CsvManifest, JsonLinesManifest
from .webdataset import SHARD_SUFFIXES, WebDatasetManifest, is_shard

_GLOB_CHARACTERS = frozenset("*?[")


KINDS: dict[str, type[Manifest]] = {
    manifest.kind: manifest
    for manifest in (
        ParquetManifest,
        CsvManifest,
        JsonLinesManifest,
        PathListManifest,
        FileListManifest,
        WebDatasetManifest,
    )
}
"""Kind, as in fingerprints → its class."""


def _open_parquet(file: ManifestFile, folder: Place, options: ManifestOptions) -> Manifest:
    return ParquetManifest(file if isinstance(file, Path) else file.path, [file], folder, options)


# Extension → what opens such a table: file, its folder, options. Globs don't take these files for images.
_TABLES: dict[str, Callable[[ManifestFile, Place, ManifestOptions], Manifest]] = {
    ".parquet": _open_parquet,
    ".pq": _open_parquet,
    ".csv": lambda file, folder, options: CsvManifest(file, ",", options),
    ".tsv": lambda file, folder, options: CsvManifest(file, "\t", options),
    ".jsonl": lambda file, folder, options: JsonLinesManifest(file, options),
    ".ndjson": lambda file, folder, options: JsonLinesManifest(file, options),
}


def open_table(where: object, file: ManifestFile, folder: Place, options: ManifestOptions) -> Manifest:
    """Open a manifest that is a single file; its extension tells the kind.

    Args:
        where: what the user named, for messages.
        file: the file to read.
        folder: its own folder, that relative paths start from.
        options: how to read it.

    Raises:
        ManifestError: it is of no known kind, or can't be read.
    """
    if is_shard(file.name):
        return WebDatasetManifest([file], options)
    suffix = os.path.splitext(file.name)[1]  # noqa: PTH122 - objects have no suffix
    if open_kind := _TABLES.get(suffix.lower()):
        return open_kind(file, folder, options)
    if suffix.lower() == ".txt":  # in globs no table: captions are kept beside images in such files
        return PathListManifest(file, options)
    if is_image(file.name):
        if isinstance(file, Path):
            return FileListManifest.from_glob(str(file), [str(file)], options)
        return FileListManifest.from_keys(file.path.parent, [file.name], options)
    raise ManifestError(
        f"{where}: unknown kind of manifest {suffix or '(no extension)'!r}; "
        f"use {', '.join(_TABLES)}, .txt, .tar, an image, a directory or a quoted glob"
    )


def refuse_mixture(
    directory: object, *, parquet: Sequence[object], shards: Sequence[object], images: Sequence[object]
) -> None:
    """Raise ManifestError if a directory holds more than one kind of list; to choose one would be a guess."""
    given = {"Parquet files": parquet, "tar shards": shards, "images": images}
    kinds = {name: _extension(str(files[0])) for name, files in given.items() if files}
    if len(kinds) > 1:
        globs = " or ".join(f"'{directory}/**/*{extension}'" for extension in kinds.values())
        raise ManifestError(f"{directory}: holds {' and '.join(kinds)}; say which with a quoted glob, {globs}")


def _extension(name: str) -> str:
    """Return a file's extension as it is written, two-part ones of shards whole."""
    length = max((len(suffix) for suffix in SHARD_SUFFIXES if name.lower().endswith(suffix)), default=0)
    return name[-length:] if length else os.path.splitext(name)[1]  # noqa: PTH122 - as above


def refuse_tables(pattern: str, names: Iterable[str]) -> None:
    """Raise ManifestError if a glob matches a table of paths."""
    if table := next((name for name in names if name.lower().endswith(tuple(_TABLES))), None):
        raise ManifestError(f"glob {pattern}: matches the table {table}; name one table, without wildcards")


def is_parquet(name: str) -> bool:
    """Tell whether a file has an extension of Parquet."""
    return name.lower().endswith((".parquet", ".pq"))


def is_glob(text: str) -> bool:
    """Tell whether there are wildcards in a path."""
    return not _GLOB_CHARACTERS.isdisjoint(text)


def first_wildcard(segments: Sequence[str]) -> int:
    """Return the number of the first segment of a glob that has a wildcard."""
    return next(at for at, segment in enumerate(segments) if is_glob(segment))


def fixed_part(pattern: str) -> Path:
    """Return the folder before a pattern's first wildcard."""
    parts = Path(pattern).parts
    return Path(*parts[: first_wildcard(parts)])
