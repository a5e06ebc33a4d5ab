"""An earlier run whose results are taken over: whether it fits, and its rows with the keys of their images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ...errors import OutputError, UsageError, option
from ...output.run_directory import read_success_file
from ...output.run_file import read_run_file
from ...output.run_identity import SUCCESS_FILE
from ...output.run_reader import RunReader
from ...stages.sink import SHA256, STAMP
from ...stores.uri import Place
from .keys import Keys, id_keys, id_kind, keys_of_binary

KnownBy = Literal["path", "id", "content"]
COLUMN: Mapping[str, str] = {"path": STAMP.name, "content": SHA256.name, "id": "id"}
"""By what images are known → the column of the parts that tells it."""

_RESULTS = ("bundle", "precision", "features", "small_images", "max_pixels", "patches", "keep_above", "keep_top")
_COLUMNS = ["row", "score", "score_std", "status", "error", "width", "height"]


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A complete run.

    Args:
        place: its output folder.
        run: its reader.
        digest: changes whenever the run does.
        by: what tells that an image is the same.
    """

    place: Place
    run: RunReader
    digest: str
    by: KnownBy

    @classmethod
    def open(cls, place: Place, by: KnownBy) -> EarlierRun:
        """Open the output folder of a run.

        Raises:
            OutputError: it is none, or not complete.
            UsageError: its parts don't tell what its images are known by.
        """
        run = RunReader.open(place)
        if run.success is None or run.success.get("parts") != len(run.indices):
            raise OutputError(
                f"{option('--known')} {place}: that run is not complete; give its own command again first, or leave it "
                "out"
            )
        earlier = cls(place, run, _digest(run), by)
        if run.success["rows"] and not any(COLUMN[by] in run.parts.schema(index).names for index in run.indices):
            raise earlier.tells_nothing()
        return earlier

    @property
    def started(self) -> int:
        """Return when the run began, in nanoseconds; 0 if it doesn't say."""
        try:
            return int(datetime.fromisoformat(self.run.run["started"]).timestamp()) * 10**9
        except (KeyError, TypeError, ValueError):
            return 0

    def check_settings(self, identity: Mapping[str, Any]) -> None:
        """Check that the results would be those of a run with this identity.

        Raises:
            UsageError: they depend on something that differs.
        """
        theirs = self.run.identity
        for name in _RESULTS:
            then, now = theirs.get(name), identity.get(name)
            if then != now:
                raise UsageError(
                    f"{option('--known')} {self.place}: was scored with another {name.replace('_', ' ')} "
                    f"({_short(then)}, now {_short(now)}), so nothing can be taken over; score with the same, or leave "
                    f"{option('--known')} out"
                )

    def check_id_type(self, ours: pa.DataType) -> None:
        """Check that identifiers of this type can be found among the run's.

        Raises:
            UsageError: they are of another kind.
        """
        schema = self.run.schema()
        if schema is not None and "id" in schema.names and id_kind(schema.field("id").type) != id_kind(ours):
            raise UsageError(
                f"{option('--known')} {self.place}: its identifiers are {schema.field('id').type}, those of the list "
                f"{ours}; give the list the same, or use {option('--known-by', 'path')}"
            )

    def check_unchanged(self) -> None:
        """Check that nobody has written to the run since it was opened.

        Raises:
            OutputError: somebody has.
        """
        if read_success_file(self.run.parts) != self.run.success or _digest(self.run) != self.digest:
            raise OutputError(
                f"{option('--known')} {self.place}: has changed since this run began; wait for who writes there, and "
                "score again"
            )

    def batches(self) -> Iterator[tuple[pa.RecordBatch, Keys, np.ndarray[Any, np.dtype[np.bool_]]]]:
        """Yield the rows with their images' keys, and which of the rows have one.

        Raises:
            OutputError: a part can't be read, or rows are missing.
            UsageError: no row has a key.
        """
        assert self.run.success is not None
        name, rows, keyed = COLUMN[self.by], 0, 0
        for index in self.run.indices:
            there = self.run.parts.schema(index).names
            more = [each for each in (name, STAMP.name, "features") if each in there]
            for batch in self.run.parts.batches(index, [*_COLUMNS, *dict.fromkeys(more)]):
                if name in there:
                    column = batch.column(name)
                    keys, has = id_keys(column.to_pylist()) if self.by == "id" else keys_of_binary(column)
                else:
                    keys, has = Keys.empty(batch.num_rows), np.zeros(batch.num_rows, np.bool_)
                rows, keyed = rows + batch.num_rows, keyed + int(has.sum())
                yield batch, keys, has
        if rows != self.run.success["rows"]:
            raise OutputError(
                f"{option('--known')} {self.place}: has {rows} rows, but its {SUCCESS_FILE} says "
                f"{self.run.success['rows']}; give its own command again first, or leave it out"
            )
        if rows and not keyed:
            raise self.tells_nothing()

    def tells_nothing(self) -> UsageError:
        """Return the error for a run whose parts don't tell what its images are known by."""
        use: Sequence[str] = {
            "path": (
                "no stamps of its images' files (it is older than stamps, or its list holds the images, or they are on "
                "the web)",
                f"{option('--known-by', 'id')} or {option('--known-by', 'content')}",
            ),
            "content": (
                f"no digests of its images (it was scored without {option('--known-by', 'content')})",
                f"{option('--known-by', 'path')} or {option('--known-by', 'id')}",
            ),
            "id": ("no identifiers", f"{option('--known-by', 'path')} or {option('--known-by', 'content')}"),
        }[self.by]
        return UsageError(f"{option('--known')} {self.place}: holds {use[0]}; use {use[1]}")


def _digest(run: RunReader) -> str:
    # `_SUCCESS` has the identifiers of all processes that worked on the run: whoever writes there changes it.
    digest = hashlib.sha256()
    try:
        for content in (read_run_file(run.path, run.parts.file), run.parts.file(SUCCESS_FILE)):
            digest.update(hashlib.sha256(content).digest())
    except FileNotFoundError:
        return ""
    return digest.hexdigest()[:16]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:21] + "..."
