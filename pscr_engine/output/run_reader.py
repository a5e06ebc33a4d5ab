"""A reader of a run's output folder, complete or not, and of the manifest that was scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ManifestError, OutputError, option
from ..manifests import Manifest, ManifestOptions, open_manifest
from ..manifests.kinds import KINDS
from ..stores.uri import Place
from .parts import Parts
from .run_directory import read_success
from .run_file import RUN_FILE, read_run_file
from .score_columns import ScoreColumns, are_names, choose_columns, score_columns


@dataclass(frozen=True, slots=True)
class RunReader:
    """A run's output as it was when it was opened: parts that appear later are not seen.

    Args:
        path: the folder.
        run: the content of `_run.json`.
        success: the content of `_SUCCESS`; None for an unfinished run.
        parts: the parts.
        indices: the chunks whose parts are there.
    """

    path: Place
    run: Mapping[str, Any]
    success: Mapping[str, Any] | None
    parts: Parts
    indices: tuple[int, ...]

    @classmethod
    def open(cls, path: Place) -> RunReader:
        """Open the folder that `pscr-engine score` wrote.

        Raises:
            OutputError: it is something else, or its `_run.json` is damaged.
        """
        parts = Parts(path)
        try:
            run = json.loads(read_run_file(path, parts.file))
            identity, settings = run["identity"], run["settings"]
            if not (isinstance(identity["manifest"], str) and isinstance(settings["columns"], dict)):
                raise TypeError
            if int(identity["chunk_rows"]) < 1:
                raise ValueError
            float(identity.get("keep_above", 0)), float(run.get("threshold", 0))
            if "bundles" in run and not are_names(run["bundles"]):
                raise TypeError
        except (FileNotFoundError, NotADirectoryError):
            what = f"no {RUN_FILE} in it" if not isinstance(path, Path) or path.is_dir() else "no such folder"
            raise OutputError(f"{path}: {what}; name the folder that pscr-engine score wrote") from None
        except OSError as error:
            raise OutputError(f"{path / RUN_FILE}: can't be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{path}: its {RUN_FILE} is damaged; score again with {option('--overwrite', True)}"
            ) from error
        return cls(path, run, read_success(parts), parts, tuple(parts.indices()))

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return what the rows depend on, by name."""
        return dict(self.run["identity"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the options that the run was given."""
        return dict(self.run["settings"])

    @property
    def keep_above(self) -> float | None:
        """Return the score at which the run has decided what to keep, by some of the patches; None if it has not."""
        value = self.identity.get("keep_above", self.run.get("threshold"))
        return None if value is None else float(value)

    @property
    def scores(self) -> list[ScoreColumns]:
        """Return the columns that hold scores: one pair, or one per bundle of several."""
        return score_columns(self.run)

    def score(self, wanted: str | None = None) -> ScoreColumns:
        """Return the columns of the score that is called `wanted`; None for the only one.

        Raises:
            UsageError: there is none of that name, or several and none is named.
        """
        return choose_columns(self.scores, wanted, self.path)

    @property
    def name(self) -> str:
        """Return the name of the run's folder."""
        return self.path.resolve().name if isinstance(self.path, Path) else self.path.name

    @property
    def manifest_kind(self) -> str:
        """Return the manifest's kind: parquet, csv, jsonl, paths, files or webdataset."""
        return str(self.identity["manifest"]).partition(":")[0]

    @property
    def has_columns(self) -> bool:
        """Tell whether the manifest is a table, and not a list of files."""
        return self.manifest_kind in KINDS and KINDS[self.manifest_kind].has_columns

    def schema(self) -> pa.Schema | None:
        """Return the names and types of the parts' columns; None as long as there are no parts."""
        return self.parts.schema(self.indices[0]) if self.indices else None

    def batches(self, *columns: str) -> Iterator[pa.RecordBatch]:
        """Yield the given columns of all rows, in order.

        Raises:
            OutputError: a part can't be read.
        """
        for index in self.indices:
            yield from self.parts.batches(index, list(columns))

    def end(self) -> int:
        """Return the number of the last row that is there, plus one."""
        return self.indices[-1] * self._chunk_rows + self.parts.rows(self.indices[-1]) if self.indices else 0

    def lines(self, rows: Sequence[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Return columns of a few rows, by the row's number. Rows that are not there are left out."""
        wanted: dict[int, list[int]] = {}
        for row in rows:
            wanted.setdefault(row // self._chunk_rows, []).append(row)
        lines = {}
        for index in self.indices:
            for batch in self.parts.batches(index, ["row", *columns]) if index in wanted else ():
                chosen = batch.filter(pc.is_in(batch.column("row"), value_set=pa.array(wanted[index], pa.int64())))
                lines.update({line["row"]: line for line in chosen.to_pylist()})
        return lines

    @property
    def _chunk_rows(self) -> int:
        return int(self.identity["chunk_rows"])

    def open_manifest(self, given: str | None = None) -> Manifest:
        """Open the manifest that was scored.

        Args:
            given: where it is now; None for where it was.

        Raises:
            ManifestError: it isn't there any more, or it has changed.
        """
        columns = dict(self.run["settings"]["columns"])
        if columns.get("root") is not None:  # perhaps relative to another working directory than this
            columns["root"] = self.identity["image_folder"]
        path = given or self._manifest_path()
        try:
            manifest = open_manifest(path, ManifestOptions(**columns))
        except ManifestError as error:
            if given is not None:
                raise
            raise ManifestError(f"{error}; say where the manifest is now with {option('--manifest')}") from error
        if manifest.fingerprint != self.identity["manifest"]:
            raise ManifestError(f"{path}: not the list that was scored into {self.path}, or renamed or changed since")
        return manifest

    def open_table(self, columns: Sequence[str], given: str | None = None) -> Manifest:
        """Open the manifest that was scored, a table with the given columns.

        Raises:
            ManifestError: as in `open_manifest`, or it lacks a column, has it twice, or is a list of files.
        """
        path = given or str(self.run["settings"]["manifest"])
        if not self.has_columns:
            raise ManifestError(f"{path}: a list of files has no columns; that needs a manifest that is a table")
        manifest = self.open_manifest(given)
        for name in columns:
            if (count := list(manifest.column_names).count(name)) != 1:
                problem = f"no column {name!r}" if count == 0 else f"several columns named {name!r}"
                raise ManifestError(f"{path}: {problem} (columns: {', '.join(manifest.column_names)})")
        return manifest

    def _manifest_path(self) -> str:
        """Return the path that the run was given: as it stands, or from where the run seems to have been started."""
        manifest, out = str(self.run["settings"]["manifest"]), Path(self.run["settings"].get("out", ""))
        if not isinstance(self.path, Path):
            return manifest
        here = self.path.resolve()
        started = here.parents[len(out.parts) - 1] if 0 < len(out.parts) <= len(here.parents) else here
        if not Path(manifest).exists() and not out.is_absolute() and started / out == here:
            return str(started / manifest)
        return manifest
