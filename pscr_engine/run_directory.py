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
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

from .atomic import atomic_file, fsync_directory
from .errors import OutputError, PscrError
from .parts import Parts, is_part
from .records import Status

RUN_FILE = "run.json"
SUCCESS_FILE = "_SUCCESS"
_LOCK_FILE = ".lock"
# The workers of a run that was killed share its lock, and need a moment to notice.
_LOCK_SECONDS = 2.0
_PARTIAL = re.compile(r"\.(part-\d{6,}\.parquet|run\.json|_SUCCESS)\.partial-\d+")


class RunDirectory:
    """An output folder that this run may write to.

    Args:
        path: the folder.
        run: the content of `run.json`.
        lock: the open lock file; the lock is held until it is closed, or the processes that share it are gone.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], lock: IO[str]) -> None:
        self.path = path
        self.parts = Parts(path)
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
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            return cls._claimed(path, run, lock, overwrite=overwrite)
        except BaseException as error:
            lock.close()
            if isinstance(error, OSError):
                raise _unwritable(path, error) from error
            raise

    @classmethod
    def _claimed(cls, path: Path, run: Mapping[str, Any], lock: IO[str], *, overwrite: bool) -> RunDirectory:
        existing = sorted(entry.name for entry in path.iterdir() if entry.name != _LOCK_FILE)
        _remove_partial(path)
        if overwrite:
            ours = [name for name in existing if name in (RUN_FILE, SUCCESS_FILE) or is_part(name)]
            # run.json goes last: a crash in between leaves a folder that is still recognised.
            for name in sorted(ours, key=lambda name: name == RUN_FILE):
                (path / name).unlink()
            fsync_directory(path)
        elif RUN_FILE in existing:
            return cls(path, _same_run(path, run), lock)
        with atomic_file(path / RUN_FILE) as temporary:
            temporary.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        return cls(path, run, lock)

    @property
    def lock_descriptor(self) -> int:
        """Of the lock. A process that inherits it shares the lock."""
        return self._lock.fileno()

    def close(self) -> None:
        """Let another run write here. No other process may write any more."""
        _remove_partial(self.path)
        self._lock.close()

    def success(self) -> dict[str, Any] | None:
        """The content of `_SUCCESS`; None while the run isn't complete, or if a part has gone since."""
        return read_success(self.parts)

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
        for _, statuses in self.parts.statuses():
            counts.update(statuses)
        if self.parts.indices() != list(range(chunks)) or counts.total() != rows:
            raise PscrError(
                f"{self.path}: {counts.total()} rows in {len(self.parts.indices())} parts, "
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


def read_success(parts: Parts) -> dict[str, Any] | None:
    """The content of `_SUCCESS` beside `parts`; None while the run isn't complete, or if a part has gone since."""
    try:
        value = json.loads((parts.folder / SUCCESS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    complete = isinstance(value, dict) and parts.indices() == list(range(value.get("parts", -1)))
    return value if complete else None


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: can't write there ({error.strerror}); choose another --out")


def _refuse_foreign(path: Path) -> None:
    """Raise OutputError if a folder without `run.json` holds anything, bar what a crash can leave."""
    for name in sorted(os.listdir(path)):
        if name != _LOCK_FILE and not _PARTIAL.fullmatch(name):
            raise OutputError(f"{path}: not empty and not the output of a run (it has {name}); choose another --out")


def _remove_partial(path: Path) -> None:
    """Remove what a process that was killed left half written."""
    for name in filter(_PARTIAL.fullmatch, os.listdir(path)):
        (path / name).unlink(missing_ok=True)


def _lock(path: Path) -> IO[str]:
    """Claim the folder for this process. The system drops the claim of a process that dies."""
    file = (path / _LOCK_FILE).open("a+", encoding="utf-8")
    deadline = monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if monotonic() < deadline:
                sleep(0.05)
                continue
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


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:21] + "..."
