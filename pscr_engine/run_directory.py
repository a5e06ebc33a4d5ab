"""The output folder of a run: `run.json`, the parts, `_SUCCESS`.

`run.json` is written first and says what the rows depend on. A part appears whole, by write,
fsync, rename. `_SUCCESS` is written last, after every part has been counted.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from .atomic import atomic_file, fsync_directory
from .errors import OutputError, PscrError, one_line
from .records import Status

RUN_FILE = "run.json"
SUCCESS_FILE = "_SUCCESS"
_LOCK_FILE = ".lock"
_PART = re.compile(r"part-(\d{6,})\.parquet")
_PARTIAL = re.compile(r"\.(part-\d{6,}\.parquet|run\.json|_SUCCESS)\.partial-\d+")


class RunDirectory:
    """An output folder that this run may write to.

    Args:
        path: the folder.
        run: the content of `run.json`.
        lock: the open lock file; the lock is held until it is closed, or the process is gone.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], lock: IO[str]) -> None:
        self.path = path
        self.run = run
        self._lock = lock

    @classmethod
    def open(cls, path: Path, run: Mapping[str, Any], *, overwrite: bool = False) -> RunDirectory:
        """Start a run in `path`, or go on with the one that is there.

        Args:
            path: the folder; made if it isn't there.
            run: what to write to `run.json`; its "identity" must equal that of a run to go on with.
            overwrite: remove what an earlier run left there.

        Raises:
            OutputError: the folder holds another run or other files, or can't be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            if RUN_FILE not in os.listdir(path):
                _refuse_foreign(path)
            lock = _lock(path)
            existing = sorted(entry.name for entry in path.iterdir() if entry.name != _LOCK_FILE)
            for name in filter(_PARTIAL.fullmatch, existing):  # cut off by a crash
                (path / name).unlink(missing_ok=True)
            if overwrite:
                ours = [name for name in existing if name in (RUN_FILE, SUCCESS_FILE) or _PART.fullmatch(name)]
                # run.json goes last: a crash in between leaves a folder that is still recognised.
                for name in sorted(ours, key=lambda name: name == RUN_FILE):
                    (path / name).unlink()
                fsync_directory(path)
            elif RUN_FILE in existing:
                return cls(path, _same_run(path, run), lock)
            with atomic_file(path / RUN_FILE) as temporary:
                temporary.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: can't write there ({error.strerror}); choose another --out") from error
        return cls(path, run, lock)

    def close(self) -> None:
        """Let another run write here."""
        self._lock.close()

    def part_path(self, index: int) -> Path:
        """Where the part of chunk `index` is, or will be."""
        return self.path / f"part-{index:06d}.parquet"

    def parts(self) -> dict[int, Path]:
        """Chunk index → its part, of all chunks that are done, in order."""
        found = {
            int(match[1]): entry for entry in self.path.iterdir() if (match := _PART.fullmatch(entry.name)) is not None
        }
        return dict(sorted(found.items()))

    def write_part(self, index: int, table: pa.Table) -> None:
        """Commit the rows of a chunk: once the part is there, it is whole and durable.

        Raises:
            PscrError: the file system refuses.
        """
        try:
            with atomic_file(self.part_path(index)) as temporary:
                pq.write_table(table, temporary, compression="zstd")
        except OSError as error:
            raise PscrError(
                f"{self.part_path(index)}: can't be written ({_reason(error)}); "
                "mend that and give the same command again to go on"
            ) from error

    def statuses(self) -> Iterator[tuple[int, list[str]]]:
        """Chunk index and the statuses of its rows, of each part.

        Raises:
            OutputError: a part can't be read.
        """
        for index, path in self.parts().items():
            try:
                yield index, pq.read_table(path, columns=["status"]).column("status").to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise OutputError(
                    f"{path}: damaged ({one_line(error, 120)}); remove this file and give the same command again"
                ) from error

    def success(self) -> dict[str, Any] | None:
        """The content of `_SUCCESS`; None while the run isn't complete, or if a part has gone since."""
        try:
            value = json.loads((self.path / SUCCESS_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        complete = isinstance(value, dict) and list(self.parts()) == list(range(value.get("parts", -1)))
        return value if complete else None

    def reopen(self) -> None:
        """Take back the completion mark, before parts are rewritten."""
        (self.path / SUCCESS_FILE).unlink(missing_ok=True)
        fsync_directory(self.path)

    def finish(self, rows: int, chunks: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Count every part and write `_SUCCESS`.

        Args:
            rows: how many rows the manifest has.
            chunks: how many parts there must be.
            facts: throughput and stage times, stored along.

        Returns:
            The content of `_SUCCESS`.

        Raises:
            PscrError: parts or rows are missing or too many.
        """
        counts: Counter[str] = Counter()
        for _, statuses in self.statuses():
            counts.update(statuses)
        if list(self.parts()) != list(range(chunks)) or counts.total() != rows:
            raise PscrError(
                f"{self.path}: {counts.total()} rows in {len(self.parts())} parts, "
                f"but the manifest has {rows} rows in {chunks} chunks; use --overwrite to score it afresh"
            )
        content = {
            "rows": rows,
            "parts": chunks,
            "status": {status.value: counts[status.value] for status in Status if counts[status.value]},
            **facts,
        }
        with atomic_file(self.path / SUCCESS_FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return content


def _refuse_foreign(path: Path) -> None:
    """Raise OutputError if a folder without `run.json` holds anything, bar what a crash can leave."""
    for name in sorted(os.listdir(path)):
        if name != _LOCK_FILE and not _PARTIAL.fullmatch(name):
            raise OutputError(f"{path}: not empty and not the output of a run (it has {name}); choose another --out")


def _lock(path: Path) -> IO[str]:
    """Claim the folder for this process. The system drops the claim of a process that dies."""
    file = (path / _LOCK_FILE).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise OutputError(
            f"{path}: another run is writing there ({holder}); wait for it, or choose another --out"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    return file


def _same_run(path: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `run.json`, if it is of a run with the same identity."""
    try:
        found = json.loads((path / RUN_FILE).read_text(encoding="utf-8"))
        theirs, ours = found["identity"], run["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: its run.json is damaged; choose another --out or use --overwrite") from error
    for name in ours:
        if theirs.get(name) != ours[name]:
            raise OutputError(
                f"{path}: holds a run with another {name.replace('_', ' ')} "
                f"({_short(theirs.get(name))}, now {_short(ours[name])}); choose another --out or use --overwrite"
            )
    return dict(found)


def _reason(error: OSError) -> str:
    """The system's own words; pyarrow wraps them in its own."""
    return os.strerror(error.errno) if error.errno else str(error)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:21] + "..."
