"""Images that come again in a run: what has the same bytes gets the first one's result, without being scored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from ..records import EarlyResult, Query, RunStats, Status

_MOST_BYTES = 256 * 2**20
_BYTES_EACH = 600
"""Measured: a digest and a result without features, in a dictionary."""
# What the bytes alone decide on. Others may be read the next time.
_OF_CONTENT = (Status.OK, Status.UNDECODABLE, Status.TOO_LARGE, Status.TOO_SMALL)


class _Result(NamedTuple):
    status: Status
    error: str | None
    width: int | None
    height: int | None
    score: float | None
    score_std: float | None
    features: Any
    results: dict[str, Query] | None
    early: EarlyResult | None

    @classmethod
    def of(cls, query: Query) -> _Result:
        result = cls(*(getattr(query, name) for name in cls._fields))
        # A view would keep the whole batch's features.
        return result if result.features is None else result._replace(features=result.features.copy())

    def fill(self, query: Query) -> None:
        for name, value in zip(self._fields, self, strict=True):
            setattr(query, name, value)

    @property
    def nbytes(self) -> int:
        results = (self.results or {}).values()
        arrays = [each for each in (self.features, *(result.features for result in results)) if each is not None]
        return _BYTES_EACH * (1 + len(results)) + sum(np.asarray(array).nbytes for array in arrays)


class Repeats:
    """Remembers results by the digest of an image's bytes, those that were last used, in bounded memory.

    Equal images that are under way at the same time are each scored, and then given the result of the first.

    Args:
        stats: where images that were not scored are counted, as `repeated`.
        most_bytes: about how much memory results may take; the least recently used ones are forgotten.
    """

    def __init__(self, stats: RunStats, most_bytes: int = _MOST_BYTES) -> None:
        self._stats, self._left = stats, most_bytes
        self._results: OrderedDict[bytes, _Result] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        """Return how many results are remembered."""
        return len(self._results)

    def look(self, queries: Sequence[Query]) -> None:
        """Give those of `queries` whose bytes are known their results; they need no further stage."""
        for query in queries:
            if not query.ok or query.data is None:
                continue
            if query.sha256 is None:
                query.sha256 = sha256(query.data).digest()
            with self._lock:
                result = self._results.get(query.sha256)
                if result is not None:
                    self._results.move_to_end(query.sha256)
            if result is not None:
                result.fill(query)
                query.data, query.repeated = None, True
                self._stats.repeated.add(1, 0.0)

    def note(self, queries: Sequence[Query]) -> None:
        """Remember the results of `queries`, which have passed all stages, or give them those of their equals."""
        for query in queries:
            elsewhere = query.repeated or query.taken_from is not None
            if elsewhere or query.sha256 is None or query.status not in _OF_CONTENT:
                continue
            with self._lock:
                known = self._results.get(query.sha256)
                if known is None:
                    self._remember(query.sha256, _Result.of(query))
            if known is not None:
                known.fill(query)

    def _remember(self, digest: bytes, result: _Result) -> None:
        self._results[digest] = result
        self._left -= result.nbytes
        while self._left < 0:
            _, forgotten = self._results.popitem(last=False)
            self._left += forgotten.nbytes
