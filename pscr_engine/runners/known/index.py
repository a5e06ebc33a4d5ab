"""An index of known images on disk: sorted keys, and beside them the results, all mapped and never read whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...errors import PscrError
from ...records import STAMP_BYTES, Status
from .earlier_run import EarlierRun
from .keys import Keys

RESULT = np.dtype(
    [
        ("score", "f4"),
        ("score_std", "f4"),
        ("width", "i4"),  # -1 for none
        ("height", "i4"),
        ("run", "u2"),
        ("status", "u1"),
        ("stamped", "u1"),
        ("stamp", f"V{STAMP_BYTES}"),
        ("error", "i8"),  # where in the file of errors; -1 for none
        ("features", "i8"),  # which row of the file of features; -1 for none
    ]
)
STATUSES = tuple(Status)
_KEYED = np.dtype([("high", "u8"), ("low", "u8"), ("result", RESULT)])
# Rows are spread over files by the first byte of their keys, so that one after the other can be sorted in memory.
_MANY_ROWS, _BUCKETS = 2**18, 256
_OK = STATUSES.index(Status.OK)


class Index:
    """The results of known images, by key. Several processes may have one open.

    Args:
        folder: where `build` has put it.
        feature_size: C, if the earlier runs have features.
    """

    def __init__(self, folder: Path, feature_size: int | None) -> None:
        high, low = (_mapped(folder / name, np.dtype(np.uint64)) for name in ("high", "low"))
        self._keys = Keys(high, low)
        self._results = _mapped(folder / "results", RESULT)
        self._errors = _mapped(folder / "errors", np.dtype(np.uint8))
        self._features = None
        if feature_size is not None:
            self._features = _mapped(folder / "features", np.dtype(np.float32)).reshape(-1, feature_size)

    def __len__(self) -> int:
        return len(self._results)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Return where the results of images are, int64 [n]; -1 for images that are not known."""
        ours, count = self._keys, len(self)
        at = np.searchsorted(ours.high, keys.high).astype(np.int64)
        found = np.full(len(at), -1, np.int64)
        left = np.arange(len(at))
        while left.size:  # keys with the same first half are next to each other
            left = left[at[left] < count]
            left = left[ours.high[at[left]] == keys.high[left]]
            same = ours.low[at[left]] == keys.low[left]
            found[left[same]] = at[left[same]]
            left = left[~same]
            at[left] += 1
        return found

    def results(self, found: NDArray[np.int64]) -> NDArray[Any]:
        """Return the results, of type `RESULT`, of images that were found."""
        return np.asarray(self._results[found])

    def error(self, result: Any) -> str | None:
        """Return why a result is a failure."""
        at = int(result["error"])
        if at < 0:
            return None
        size = int.from_bytes(self._errors[at : at + 4].tobytes(), "little")
        return self._errors[at + 4 : at + 4 + size].tobytes().decode()

    def features(self, result: Any) -> NDArray[np.float32] | None:
        """Return a result's features."""
        at = int(result["features"])
        return None if self._features is None or at < 0 else np.array(self._features[at])


def build(runs: Sequence[EarlierRun], folder: Path, *, failed: bool, feature_size: int | None) -> None:
    """Write the index of all rows of `runs`, of which the first has precedence.

    Args:
        runs: the earlier runs.
        folder: an empty one.
        failed: whether failed rows are known, too.
        feature_size: C, if the runs have features.

    Raises:
        PscrError: there is no room, or a run can't be read.
    """
    rows = sum(int(run.run.success["rows"]) for run in runs if run.run.success is not None)
    needed = rows * (2 * _KEYED.itemsize + 4 * (feature_size or 0))
    if (free := shutil.disk_usage(folder).free) < needed:
        raise _no_room(folder, f"{free / 2**20:,.0f} MiB are free, {needed / 2**20:,.0f} needed")
    buckets = [folder / f"bucket-{number:03d}" for number in range(_BUCKETS if rows > _MANY_ROWS else 1)]
    try:
        _spread(runs, folder, buckets)
        with ExitStack() as files:
            high, low, results = (
                files.enter_context((folder / name).open("wb")) for name in ("high", "low", "results")
            )
            for bucket in buckets:
                kept = _deduplicated(np.fromfile(bucket, _KEYED), by_id=runs[0].by == "id", failed=failed)
                bucket.unlink()
                high.write(np.ascontiguousarray(kept["high"]).data)
                low.write(np.ascontiguousarray(kept["low"]).data)
                results.write(np.ascontiguousarray(kept["result"]).tobytes())
    except OSError as error:
        if error.filename is not None and Path(str(error.filename)).parent != folder:
            raise
        raise _no_room(folder, error.strerror or str(error)) from error


def _no_room(folder: Path, why: str) -> PscrError:
    return PscrError(f"{folder.parent}: no room for the index of known images ({why}); set TMPDIR to another folder")


def _spread(runs: Sequence[EarlierRun], folder: Path, buckets: Sequence[Path]) -> None:
    with ExitStack() as files:
        errors, features = (files.enter_context((folder / name).open("wb")) for name in ("errors", "features"))
        opened = [files.enter_context(bucket.open("wb")) for bucket in buckets]
        held = 0
        for number, run in enumerate(runs):
            for batch, keys, has in run.batches():
                rows = np.zeros(batch.num_rows, _KEYED)
                rows["high"], rows["low"] = keys
                rows["result"] = _results(batch, number, errors, features, held)
                held += batch.num_rows if "features" in batch.schema.names else 0
                _write(rows[has], opened)
            run.check_unchanged()


def _write(rows: NDArray[Any], buckets: Sequence[IO[bytes]]) -> None:
    if len(buckets) == 1:
        buckets[0].write(rows.tobytes())
        return
    which = (rows["high"] >> np.uint64(56)).astype(np.uint8)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=_BUCKETS))
    for bucket, start, end in zip(buckets, [0, *ends[:-1]], ends, strict=True):
        if end > start:
            bucket.write(rows[order[start:end]].tobytes())


def _results(batch: pa.RecordBatch, run: int, errors: IO[bytes], features: IO[bytes], held: int) -> NDArray[Any]:
    results = np.zeros(batch.num_rows, RESULT)
    for name in ("score", "score_std"):
        results[name] = batch.column(name).fill_null(0.0).to_numpy()
    for name in ("width", "height"):
        results[name] = batch.column(name).fill_null(-1).to_numpy()
    results["run"] = run
    results["status"] = [STATUSES.index(Status(status)) for status in batch.column("status").to_pylist()]
    results["error"] = [_kept(error, errors) for error in batch.column("error").to_pylist()]
    if "stamp" in batch.schema.names:
        column = batch.column("stamp")
        results["stamped"] = column.is_valid().to_numpy(zero_copy_only=False)
        results["stamp"] = np.array(column.fill_null(bytes(STAMP_BYTES)).to_pylist(), f"V{STAMP_BYTES}")
    results["features"] = -1
    if "features" in batch.schema.names:
        column = batch.column("features")
        lists = column.values.slice(column.offset * column.type.list_size, len(column) * column.type.list_size)
        features.write(lists.fill_null(0.0).to_numpy().astype(np.float32).tobytes())
        there = column.is_valid().to_numpy(zero_copy_only=False)
        results["features"] = np.where(there, held + np.arange(batch.num_rows), -1)
    return results


def _kept(error: str | None, errors: IO[bytes]) -> int:
    if error is None:
        return -1
    at, text = errors.tell(), error.encode()
    errors.write(len(text).to_bytes(4, "little") + text)
    return at


def _deduplicated(rows: NDArray[Any], *, by_id: bool, failed: bool) -> NDArray[Any]:
    """Sort rows by key, and keep one of each: a scored one if there is one, of the run that was named first.

    An identifier that this run has twice is none: which of its rows is meant is not known.
    """
    if not len(rows):
        return rows
    failures = rows["result"]["status"] != _OK
    rows = rows[np.lexsort((rows["result"]["run"], failures, rows["low"], rows["high"]))]
    first = np.ones(len(rows), np.bool_)
    first[1:] = (rows["high"][1:] != rows["high"][:-1]) | (rows["low"][1:] != rows["low"][:-1])
    keep = rows[first]
    good = np.ones(len(keep), np.bool_)
    if by_id:
        group = np.cumsum(first) - 1
        alike = rows["result"]["run"] == keep["result"]["run"][group]
        good &= np.bincount(group, weights=alike, minlength=len(keep)) == 1
    if not failed:
        good &= keep["result"]["status"] == _OK
    return keep[good]


def _mapped(file: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    if not file.stat().st_size:
        return np.empty(0, dtype)
    return np.memmap(file, dtype, "r")


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files of an index."""
    return (folder / name for name in ("high", "low", "results", "errors", "features"))
