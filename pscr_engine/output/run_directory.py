"""The output folder of a run: `run.json`, the parts, `_SUCCESS`.

`run.json` is written first and says what the rows depend on. A part appears whole. `_SUCCESS` is written last, after
every part has been counted. `output.folder.Folder` hides whether these are on a file system or in an object store.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import OutputError, PscrError
from ..records import Status
from ..stores.uri import Place
from .folder import Folder, Lock, is_partial
from .open import open_folder
from .parts import Parts, is_part
from .shard import WHOLE, Shard

log = logging.getLogger("pscr_engine")

RUN_FILE = "run.json"
SUCCESS_FILE = "_SUCCESS"


class RunDirectory:
    """An output folder that this run, or this shard of it, may write to.

    Args:
        folder: where its files are.
        run: the content of `run.json`.
        shard: which chunks this process may write.
        lock: the claim to them, held until `close`, or until the processes that share it are gone.
    """

    def __init__(self, folder: Folder, run: Mapping[str, Any], shard: Shard, lock: Lock) -> None:
        self.path = folder.location
        self.parts = Parts(folder.location)
        self.run = run
        self.shard = shard
        self._folder, self._lock = folder, lock

    @classmethod
    def open(
        cls, path: Place, run: Mapping[str, Any], *, overwrite: bool = False, shard: Shard = WHOLE
    ) -> RunDirectory:
        """Start a run in `path`, or go on with the one that is there.

        Args:
            path: the folder; made if it isn't there.
            run: what to write to `run.json`; its "identity" must equal that of a run to go on with.
            overwrite: remove what an earlier run left there. For a whole run only.
            shard: which of its chunks are this process's.

        Raises:
            OutputError: the folder holds another run or other files, or can't be written.
        """
        folder = open_folder(path)
        try:
            folder.make()
            _refuse_foreign(path, folder.names())
            lock = folder.lock(shard)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            return cls._claimed(folder, run, shard, lock, overwrite=overwrite)
        except BaseException as error:
            lock.release()
            if isinstance(error, OSError):
                raise _unwritable(path, error) from error
            raise

    @classmethod
    def _claimed(
        cls, folder: Folder, run: Mapping[str, Any], shard: Shard, lock: Lock, *, overwrite: bool
    ) -> RunDirectory:
        folder.tidy(shard)
        if overwrite:
            ours = [name for name in folder.names() if name in (RUN_FILE, SUCCESS_FILE) or is_part(name)]
            # run.json goes last: a crash in between leaves a folder that is still recognised.
            folder.remove(sorted(ours, key=lambda name: name == RUN_FILE))
        folder.create(RUN_FILE, _json(run))
        return cls(folder, _same_run(folder, run), shard, lock)

    @property
    def lock_descriptors(self) -> Sequence[int]:
        """Return the open files of the lock. A process that inherits them shares the lock."""
        return self._lock.descriptors

    def check(self) -> None:
        """Raise OutputError if this process has lost its claim to write here."""
        self._lock.check()

    def close(self) -> None:
        """Give the claim up, so that another run can write here. No process of this run may write any more."""
        self._folder.tidy(self.shard)
        self._lock.release()

    def success(self) -> dict[str, Any] | None:
        """Return the content of `_SUCCESS`; None while the run isn't complete, or if a part has gone since."""
        return read_success(self.parts)

    def drop_damaged_parts(self, chunk_rows: int) -> None:
        """Remove this shard's parts whose footers can't be read or whose chunks lack rows: they are scored again.

        Raises:
            PscrError: one can't be removed.
        """
        done = self.parts.indices()
        found = self.parts.footers([index for index in done if self.shard.owns(index)])
        for index, rows in found:
            if isinstance(rows, int) and (rows == chunk_rows or (index == done[-1] and 0 < rows <= chunk_rows)):
                continue
            if rows == 0 and (self.success() or {}).get("rows") == 0:  # the manifest has none
                continue
            reason = f"{rows} rows" if isinstance(rows, int) else rows
            log.warning("%s: damaged (%s); its rows are scored again", self.parts.path(index), reason)
            self._folder.remove([SUCCESS_FILE, self.parts.path(index).name])

    def clear_success(self) -> None:
        """Remove the completion mark, before parts are rewritten."""
        self._folder.remove([SUCCESS_FILE])

    def finish(self, rows: int, chunks: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Count every part and write `_SUCCESS`.

        Args:
            rows: how many rows the manifest has.
            chunks: how many parts there must be.
            facts: throughput and stage times, to be stored with the counts.

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
        self.check()
        self._folder.write(SUCCESS_FILE, lambda file: file.write(_json(content)))
        return content


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def read_success(parts: Parts) -> dict[str, Any] | None:
    """Read `_SUCCESS` beside `parts`; return None while the run isn't complete, or if a part has gone since."""
    try:
        value = json.loads(parts.file(SUCCESS_FILE))
    except (FileNotFoundError, ValueError):
        return None
    complete = isinstance(value, dict) and parts.indices() == list(range(value.get("parts", -1)))
    return value if complete else None


def _unwritable(path: Place, error: OSError) -> OutputError:
    return OutputError(f"{path}: can't write there ({error.strerror}); choose another --out")


def _refuse_foreign(path: Place, names: Sequence[str]) -> None:
    """Raise OutputError if a folder without `run.json` holds anything, bar what a crash can leave."""
    foreign = [] if RUN_FILE in names else sorted(name for name in names if not is_partial(name))
    if foreign:
        raise OutputError(f"{path}: not empty and not the output of a run (it has {foreign[0]}); choose another --out")


def _same_run(folder: Folder, run: Mapping[str, Any]) -> dict[str, Any]:
    """Read `run.json`; raise OutputError unless it is of a run with the same identity."""
    path = folder.location
    try:
        earlier = json.loads(folder.read(RUN_FILE))
        theirs, ours = earlier["identity"], run["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: its run.json is damaged; choose another --out or use --overwrite") from error
    for name in {**ours, **theirs}:  # what one of them lacks is compared, too
        if theirs.get(name) != ours.get(name):
            then, now, advice = _short(theirs.get(name)), _short(ours.get(name)), ""
            if name == "bundle":
                then, now, advice = _bundle_names(earlier, run) or (then, now, advice)
            raise OutputError(
                f"{path}: holds a run with another {name.replace('_', ' ')} ({then}, now {now}); "
                f"{advice}choose another --out or use --overwrite"
            )
    return dict(earlier)


def _bundle_names(earlier: Mapping[str, Any], run: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Say which bundle the run in the folder has, which one this run has, and how to go on with the former.

    Returns:
        None if names tell no difference: the content has changed.
    """
    try:
        then, now = earlier["settings"]["bundle"], run["settings"]["bundle"]
        described = _describe_bundle(earlier), _describe_bundle(run)
    except (KeyError, TypeError, AttributeError):  # a run of an earlier version, or a damaged file
        return None
    return None if then == now else (*described, f"go on with --bundle {then}, ")


def _describe_bundle(run: Mapping[str, Any]) -> str:
    name, facts = run["settings"]["bundle"], run["bundle"]
    shipped = facts.get("shipped_model") is not None
    by_default = ", taken since none was named" if facts.get("by_default") else ""
    return f"the shipped model {name}{by_default}" if shipped else f"{name}{by_default}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:21] + "..."
