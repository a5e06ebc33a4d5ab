"""Taking results over: which images are known, and their rows."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pyarrow as pa

from ...records import Query, Status, take_group
from ...stages.fetch import file_state
from ...stores.uri import WEB_SCHEMES, StorePath, scheme_of
from .earlier_run import KnownBy
from .index import STATUSES, Index
from .keys import id_keys, keys_of

_BLOCK_ROWS = 256
# Files on a network are looked at side by side, some at a time: one by one the hand-over would take longer.
_THREADS, _FILES_AT_ONCE = 8, 32


@dataclass(slots=True)
class KnownImages:
    """The images that earlier runs have scored.

    Args:
        index: their results; None if there are no earlier runs, and digests are only to be kept.
        names: the earlier runs' outputs, as `taken_from` names them.
        started: when each began, in nanoseconds: a file modified since may have changed within one tick of its clock.
        by: what tells that an image is the same.
        failed: whether failed rows are taken over, too.
        id_type: type of the identifiers in the parts.
    """

    index: Index | None
    names: Sequence[str]
    started: Sequence[int]
    by: KnownBy
    failed: bool = False
    id_type: pa.DataType | None = None
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, "known"))

    @property
    def on_read(self) -> Callable[[Sequence[Query]], None] | None:
        """Return what is to be done once bytes of images are there."""
        return self._by_content if self.by == "content" else None

    @property
    def tells_before_fetch(self) -> bool:
        """Tell whether images are known before they are fetched."""
        return self.index is not None and self.by != "content"

    def split(self, queries: Iterator[Query], taken: list[Query], most: int) -> Iterator[Query]:
        """Yield the queries whose images are not known, and add the others to `taken`, until these are `most`."""
        while len(taken) < most and (block := take_group(queries, _BLOCK_ROWS)):
            self._before_fetch([query for query in block if query.ok])
            for query in block:
                if query.taken_from is None:
                    yield query
                else:
                    taken.append(query)

    def _before_fetch(self, queries: Sequence[Query]) -> None:
        if self.by == "id":
            ids = pa.array([query.id for query in queries if _is_unicode(query.id)], self.id_type).to_pylist()
            given = iter(ids)
            keys = id_keys([next(given) if _is_unicode(query.id) else None for query in queries])
        else:
            stamps, modified = self._stamps(queries)
            self._take(queries, *keys_of(stamps), modified)
            return
        self._take(queries, *keys)

    def _by_content(self, queries: Sequence[Query]) -> None:
        for query in queries:
            if query.sha256 is None and query.data is not None:
                query.sha256 = sha256(query.data).digest()
        if self.index is not None:
            queries = [query for query in queries if query.ok]
            self._take(queries, *keys_of([query.sha256 for query in queries]))

    def _take(self, queries: Sequence[Query], keys: Any, has: Any, modified: Mapping[int, int] | None = None) -> None:
        assert self.index is not None
        if not queries:
            return
        found = self.index.find(keys)
        found[~has] = -1
        known = [query for query, at in zip(queries, found, strict=True) if at >= 0]
        for query, result in zip(known, self.index.results(found[found >= 0]), strict=True):
            status = STATUSES[result["status"]]
            settled = modified is None or modified.get(query.row, -1) < self.started[result["run"]]
            if settled and (status is Status.OK or self.failed):
                self._fill(query, status, result)

    def _fill(self, query: Query, status: Status, result: Any) -> None:
        assert self.index is not None
        query.status, query.error, query.data = status, self.index.error(result), None
        query.taken_from = self.names[result["run"]]
        if status is Status.OK:
            query.score, query.score_std = float(result["score"]), float(result["score_std"])
            query.features = self.index.features(result)
        width, height = int(result["width"]), int(result["height"])
        query.width, query.height = (None if width < 0 else width), (None if height < 0 else height)
        if query.stamp is None and self.by != "content":  # the state of what was scored, and not of what is there now
            query.stamp = bytes(result["stamp"]) if result["stamped"] else None

    def _stamps(self, queries: Sequence[Query]) -> tuple[list[bytes | None], dict[int, int]]:
        """Look where the images are, without fetching; return stamps, None if in vain, and when files were modified."""
        files = [query for query in queries if query.location is not None]
        blocks = [files[at : at + _FILES_AT_ONCE] for at in range(0, len(files), _FILES_AT_ONCE)]
        looks = [look for block in self._threads.map(_look_at_files, blocks) for look in block]
        stamps: dict[int, bytes | None] = dict.fromkeys((query.row for query in queries), None)
        stamps.update((row, stamp) for row, stamp, _ in looks)
        stored = [query for query in queries if query.uri is not None and scheme_of(query.uri) not in WEB_SCHEMES]
        if stored:
            from ...stores.objects import image_states

            states = image_states([StorePath.parse(query.uri) for query in stored if query.uri is not None])
            for query, state in zip(stored, states, strict=True):
                stamps[query.row] = _stamp(query, state)
        return [stamps[query.row] for query in queries], {row: modified for row, _, modified in looks}


def _look_at_files(queries: Sequence[Query]) -> list[tuple[int, bytes | None, int]]:
    return [(query.row, *_look(query)) for query in queries]


def _look(query: Query) -> tuple[bytes | None, int]:
    try:
        info = os.stat(query.location or "")  # noqa: PTH116 - Path would be slow here
    except (OSError, ValueError):
        return None, -1
    return _stamp(query, file_state(info) if stat.S_ISREG(info.st_mode) else None), info.st_mtime_ns


def _stamp(query: Query, state: str | None) -> bytes | None:
    """Return the stamp that an image has now. The query keeps none: it may be fetched, and in another state by then."""
    if state is None:
        return None
    query.note_state(state)
    stamp, query.stamp = query.stamp, None
    return stamp


def _is_unicode(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
