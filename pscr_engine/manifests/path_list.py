"""Lists of images in text files: one path per line, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from ..errors import ManifestError
from ..records import Query
from .base import Manifest, ManifestFile, ManifestOptions
from .forward import ForwardReader
from .image_files import refuse_columns
from .queries import QueryMaker
from .text import UTF8_ERRORS, digest_and_line_ends, require_utf8

_COLUMNS = ("path", "image")


class PathListManifest(Manifest):
    """A text file with one path or URI per line, taken as it is written: no quotes, no comments.

    Empty lines are no rows. A first line that names a table's columns is refused: rows would be wrong.
    """

    kind = "paths"
    has_columns = False
    id_type: pa.DataType | None = None

    def __init__(self, path: ManifestFile, options: ManifestOptions) -> None:
        refuse_columns(path, replace(options, root=None))
        self._path = path
        self._watch([path])
        require_utf8(path)
        first = next(self._lines(), None)
        if first is None:
            raise ManifestError(f"{path}: empty; write one path per line")
        for separator, suffix in ((",", ".csv"), ("\t", ".tsv")):
            if any(name.strip(' "') in _COLUMNS for name in first.split(separator)):
                raise ManifestError(
                    f"{path}: its first line, {first[:80]!r}, reads like the header of a table; call it {suffix}, "
                    "or take the line out"
                )
        self._maker = QueryMaker.for_folder(path.parent, options)
        self.folder = self._maker.folder
        digest, feeds, _, last = digest_and_line_ends(path)
        self.fingerprint = f"{self.kind}:{digest}"
        self.num_rows: int | None = feeds + (last != b"\n")

    def reader(self) -> ForwardReader[str]:
        """Return a reader with an open file of its own."""
        return ForwardReader(self._lines, self._query)

    def _query(self, row: int, line: str) -> Query:
        return self._maker.make(row, line)

    def _lines(self) -> Iterator[str]:
        with self._path.open(encoding="utf-8-sig", errors=UTF8_ERRORS, newline="\n") as file:
            for line in file:
                path = line.removesuffix("\n").removesuffix("\r")
                if path.strip():
                    yield path
