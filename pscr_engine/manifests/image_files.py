"""Manifests that are directories or globs of image files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from ..errors import ManifestError, option
from ..records import Query, Status
from ..stores.odd_keys import why_not
from ..stores.uri import Place, StorePath
from .base import Manifest, ManifestOptions
from .queries import QueryMaker

OUR_OWN = frozenset({"bundle.json", "_run.json", "run.json"})
"""A folder with one of these is a bundle or a run's output, of this version or an earlier one."""

IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in "avif bmp gif jfif jp2 jpe jpeg jpg pgm png pnm ppm tif tiff webp".split()  # noqa: SIM905
)


class FileListManifest(Manifest):
    """A list of image files in a fixed order: sorted by name."""

    kind = "files"
    has_columns = False
    id_type: pa.DataType | None = None

    def __init__(self, names: Sequence[str], base: Place) -> None:
        self._names, self._keys = names, isinstance(base, StorePath)
        self._maker = QueryMaker.for_folder(base, ManifestOptions())
        self.folder = self._maker.folder
        self.num_rows: int | None = len(names)
        digest = hashlib.sha256()
        for name in names:
            digest.update(os.fsencode(name) + b"\0")
        self.fingerprint = f"{self.kind}:{digest.hexdigest()}"

    @classmethod
    def from_glob(cls, pattern: str, names: Sequence[str], options: ManifestOptions) -> FileListManifest:
        """List the files that a pattern matches, whatever their extension, without folders."""
        refuse_columns(f"glob {pattern}", options)
        files = [name for name in names if not Path(name).is_dir()]
        if not files:
            raise ManifestError(f"glob {pattern}: matches no files")
        return cls(files, Path())

    @classmethod
    def from_keys(cls, prefix: StorePath, names: Sequence[str], options: ManifestOptions) -> FileListManifest:
        """List the objects `names`, relative to a prefix in an object store.

        Raises:
            ManifestError: two of them read alike: `/a.jpg` and `a.jpg` are two keys, and listings strip the slash.
        """
        refuse_columns(prefix, options)
        # Listings are in order, so that names that read alike break it; a set of millions would only cost memory.
        if any(later <= earlier for earlier, later in pairwise(names)) and len(set(names)) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise ManifestError(
                f"{prefix}: two keys read {twice!r}, one of them with a slash before or behind it; "
                "copy it to another key"
            )
        return cls(names, prefix)

    @classmethod
    def from_directory(cls, directory: Path, names: Sequence[str], options: ManifestOptions) -> FileListManifest:
        """List the image files `names`, relative to `directory`."""
        refuse_columns(directory, options)
        if not names:
            raise ManifestError(f"{directory}: no image files in it ({' '.join(sorted(IMAGE_SUFFIXES))})")
        return cls(names, directory)

    def reader(self) -> FileListManifest:
        """Return the manifest itself, which holds no open files."""
        return self

    def read(self, rows: range) -> Iterator[Query]:
        """Yield the queries of those `rows` that exist, in order."""
        for row in range(rows.start, min(rows.stop, len(self._names))):
            name = self._names[row]
            # A key isn't followed like a path, which could lead to another object.
            if self._keys and (trouble := why_not(name)):
                query = Query(row, path=name)
                query.fail(Status.UNREADABLE, trouble)
                yield query
            else:
                yield self._maker.make(row, name)


def files_below(directory: Path) -> Iterator[str]:
    """Yield the names of all files in all folders below, relative to `directory`, in no particular order.

    Links to folders are followed, each folder once. Hidden folders are passed over, and so are bundles and the
    output folders of runs: they are this program's own.
    """
    visited = set()
    for folder, folders, files in os.walk(directory, onerror=_raise, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 - Path would be slow here
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        if folder != str(directory) and not OUR_OWN.isdisjoint(files):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = os.path.relpath(folder, directory)
        yield from files if relative == "." else (f"{relative}/{file}" for file in files)


def is_image(name: str) -> bool:
    """Tell whether a file has an image's extension, and is not what macOS keeps beside a file, `._NAME`."""
    return not is_apple_double(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - Path would be slow here


def is_apple_double(name: str) -> bool:
    """Tell whether a file is `._NAME`, in which macOS keeps attributes of the file NAME."""
    return name.rpartition("/")[2].startswith("._")


def is_hidden(name: str) -> bool:
    """Tell whether readers of datasets pass a file over: it, or a folder that it is in, begins with "_" or "."."""
    return any(part.startswith(("_", ".")) and part not in (".", "..") for part in name.split("/"))


def _raise(error: OSError) -> None:
    raise error


def refuse_columns(origin: object, options: ManifestOptions) -> None:
    """Raise ManifestError if options are given that only a table can follow."""
    for flag, value in (
        (option("--path-column"), options.path_column),
        (option("--id-column"), options.id_column),
        (option("--root"), options.root),
    ):
        if value is not None:
            raise ManifestError(
                f"{origin}: {flag} is for manifests with columns, this is a list of files; leave it out"
            )
