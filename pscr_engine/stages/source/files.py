"""Directories and globs of image files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ...errors import ManifestError
from ...records import Query
from .base import ManifestOptions, QueryMaker

IMAGE_SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".png",
        ".pgm",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)


class FileListManifest:
    """Image files in a fixed order: sorted by name."""

    id_type: pa.DataType | None = None

    def __init__(self, names: Sequence[str], base: Path) -> None:
        self._names = names
        self._maker = QueryMaker(base)
        self.num_rows: int | None = len(names)
        digest = hashlib.sha256()
        for name in names:
            digest.update(os.fsencode(name) + b"\0")
        self.fingerprint = f"files:{digest.hexdigest()}"

    @classmethod
    def from_directory(cls, directory: Path, options: ManifestOptions) -> FileListManifest:
        """All files with an image's extension, in all folders below, named relative to `directory`."""
        _refuse_columns(directory, options)
        names = [
            os.path.relpath(os.path.join(folder, file), directory)  # noqa: PTH118 - Path would be slow here
            for folder, _, files in os.walk(directory, onerror=_raise)
            for file in files
            if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
        ]
        if not names:
            raise ManifestError(f"{directory}: no image files in it ({' '.join(sorted(IMAGE_SUFFIXES))})")
        return cls(sorted(names), directory)

    @classmethod
    def from_names(cls, names: Sequence[str], origin: str, options: ManifestOptions) -> FileListManifest:
        """The named files, whatever their extension; folders among them are left out."""
        _refuse_columns(origin, options)
        files = [name for name in names if not Path(name).is_dir()]
        if not files:
            raise ManifestError(f"{origin}: matches no files")
        return cls(files, Path())

    def rows(self, start: int = 0) -> Iterator[Query]:
        """See `Manifest.rows`."""
        for row in range(start, len(self._names)):
            yield self._maker.make(row, self._names[row])


def _raise(error: OSError) -> None:
    raise error


def _refuse_columns(origin: object, options: ManifestOptions) -> None:
    for flag, value in (
        ("--path-column", options.path_column),
        ("--id-column", options.id_column),
        ("--root", options.root),
    ):
        if value is not None:
            raise ManifestError(
                f"{origin}: {flag} is for manifests with columns, this is a list of files; leave it out"
            )
