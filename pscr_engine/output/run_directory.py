"""The output folder of a run: `_run.json`, the parts, `_SUCCESS`.

`_run.json` is written first and says what the rows depend on. A part appears whole. `_SUCCESS` is written last, after
every part has been counted. `output.folder.Folder` hides whether these are on a file system or in an object store.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..errors import OutputError, PscrError, option
from ..records import Status
from ..stores.uri import Place
from .folder import Folder, Lock, is_partial
from .open import open_folder
from .parts import Parts, is_part
from .processes import Share, is_record, read_records, shares_of, united, write_record
from .run_file import RUN_FILES, has_run_file, read_run_file
from .run_identity import SUCCESS_FILE, adopt_run, as_json, purpose_of
from .shard import WHOLE, Shard

log = logging.getLogger("pscr_engine")


class RunDirectory:
    """An output folder that this run, or this shard of it, may write to.

    Args:
        folder: where its files are.
        run: the content of `_run.json`.
        shard: which chunks this process may write.
        lock: the claim to them, held until `close`, or until the processes that share it are gone.
        overwrite: whether `begin` is to remove what an earlier run left there.
    """

    def __init__(
        self, folder: Folder, run: Mapping[str, Any], shard: Shard, lock: Lock, *, overwrite: bool = False
    ) -> None:
        self.path = folder.location
        self.parts = Parts(folder.location)
        self.run = run
        self.shard = shard
        self._folder, self._lock, self._overwrite = folder, lock, overwrite
        self._begun = False
        self._key = secrets.token_hex(8)
        self._earlier: list[Share] = []

    @classmethod
    def holds_run(cls, path: Place) -> bool:
        """Tell whether there is a run in `path`, with parts or without. Changes nothing there.

        Raises:
            OutputError: it holds other files, or can't be an output folder.
        """
        try:
            names = open_folder(path).names()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unwritable(path, error) from error
        _refuse_foreign(path, names)
        return has_run_file(names)

    @classmethod
    def open(
        cls, path: Place, run: Mapping[str, Any], *, overwrite: bool = False, shard: Shard = WHOLE
    ) -> RunDirectory:
        """Claim `path` for a new run, or to go on with the one that is there.

        A run without parts is none: another takes its place.

        Args:
            path: the folder; made if it isn't there.
            run: what to write to `_run.json`; its "identity" must equal that of a run to go on with.
            overwrite: that `begin` is to remove what an earlier run left there. For a whole run only.
            shard: which of its chunks are this process's.

        Raises:
            OutputError: the folder holds another run or other files, or can't be written.
        """
        folder = open_folder(path)
        try:
            folder.make()
            _refuse_foreign(path, folder.names())
            lock = folder.lock(shard, purpose_of(run))
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            folder.tidy(shard)
            if overwrite:
                with suppress(FileNotFoundError):
                    read_run_file(path, folder.read)  # refuses where one of two may be somebody else's
                return cls(folder, run, shard, lock, overwrite=True)
            return cls(folder, adopt_run(folder, run, shard), shard, lock)
        except BaseException as error:
            lock.release()
            if isinstance(error, OSError):
                raise _unwritable(path, error) from error
            raise

    def begin(self) -> None:
        """Remove what is to be overwritten, and the completion mark. To be called before the first part is written.

        Until then, a run that can't begin leaves an earlier one as it was.
        """
        if self._begun:
            return
        self._begun = True
        if self._overwrite:
            self._overwrite = False
            ours = [name for name in self._folder.names() if _is_ours(name)]
            # What says that this is a run goes last: a crash in between leaves a folder that is still recognised.
            self._folder.remove(sorted(ours, key=lambda name: name in RUN_FILES))
            self.run = adopt_run(self._folder, self.run, self.shard)
        self._earlier = shares_of(read_success_file(self.parts))
        if self._earlier:
            write_record(self._folder, self._key, self._earlier)
        self._folder.remove([SUCCESS_FILE])

    def note_process(self, share: Share) -> None:
        """Keep what a process has done so far, until `finish` puts it into `_SUCCESS`."""
        write_record(self._folder, self._key, [*self._earlier, share])

    def done(self) -> list[int]:
        """List the indices of the chunks that need not be scored, in order."""
        return [] if self._overwrite else self.parts.indices()

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
        return None if self._overwrite else read_success(self.parts)

    def drop_damaged_parts(self, chunk_rows: int) -> None:
        """Remove this shard's parts whose footers can't be read or whose chunks lack rows: they are scored again.

        Raises:
            PscrError: one can't be removed.
        """
        done = self.done()
        found = self.parts.footers([index for index in done if self.shard.owns(index)])
        for index, rows in found:
            if isinstance(rows, int) and (rows == chunk_rows or (index == done[-1] and 0 < rows <= chunk_rows)):
                continue
            if rows == 0 and (self.success() or {}).get("rows") == 0:  # the manifest has none
                continue
            reason = f"{rows} rows" if isinstance(rows, int) else rows
            log.warning("%s: damaged (%s); its rows are scored again", self.parts.path(index), reason)
            self._folder.remove([SUCCESS_FILE, self.parts.path(index).name])

    def finish(self, rows: int, chunks: int, facts: Mapping[str, Any], share: Share | None = None) -> dict[str, Any]:
        """Count every part and write `_SUCCESS`.

        Args:
            rows: how many rows the manifest has.
            chunks: how many parts there must be.
            facts: throughput and stage times, to be stored with the counts.
            share: what this process has done.

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
                f"but the manifest has {rows} rows in {chunks} chunks; use {option('--overwrite', True)} to score it "
                f"afresh"
            )
        content = {
            "rows": rows,
            "parts": chunks,
            "status": {status.value: counts[status.value] for status in Status if counts[status.value]},
            **facts,
        }
        # First the records, then `_SUCCESS`: a shard that finishes at the same time writes it before it removes them.
        names = [name for name in self._folder.names() if is_record(name)]
        shares = [*self._earlier, *read_records(self._folder, names)]
        shares += shares_of(read_success_file(self.parts))
        content["processes"] = united(shares if share is None else [*shares, share])
        self.check()
        self._folder.write(SUCCESS_FILE, lambda file: file.write(as_json(content)))
        self._folder.remove(names)
        return content


def _is_ours(name: str) -> bool:
    return name in (*RUN_FILES, SUCCESS_FILE) or is_part(name) or is_record(name)


def read_success(parts: Parts) -> dict[str, Any] | None:
    """Read `_SUCCESS` beside `parts`; return None while the run isn't complete, or if a part has gone since."""
    value = read_success_file(parts)
    complete = value is not None and parts.indices() == list(range(value.get("parts", -1)))
    return value if complete else None


def read_success_file(parts: Parts) -> dict[str, Any] | None:
    """Read `_SUCCESS` beside `parts`, whether all parts that it counts are still there or not."""
    try:
        value = json.loads(parts.file(SUCCESS_FILE))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _unwritable(path: Place, error: OSError) -> OutputError:
    return OutputError(f"{path}: can't write there ({error.strerror}); choose another {option('--out')}")


def _refuse_foreign(path: Place, names: Sequence[str]) -> None:
    """Raise OutputError if a folder without `_run.json` holds anything, bar what a crash can leave."""
    foreign = [] if has_run_file(names) else sorted(name for name in names if not is_partial(name))
    if foreign:
        raise OutputError(
            f"{path}: not empty and not the output of a run (it has {foreign[0]}); choose another {option('--out')}"
        )
