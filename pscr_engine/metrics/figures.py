"""What metrics are made of: what a run says of itself at a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..records import StageCounts


@dataclass(frozen=True, slots=True)
class Figures:
    """A moment of a run. What counts up never goes down.

    Args:
        backend: name of the backend that scores; "" until the first worker is ready.
        total: rows of the run, or of this process's shard; None while that is not known.
        done: how many of them are in parts, whichever process wrote these.
        status: status → how many rows this process has committed.
        uncommitted: rows that are scored, but not committed yet.
        seconds: since this process began to score.
        startup_seconds: until the first worker was ready.
        images_per_second: over those seconds.
        counts: stage, check or kind of traffic → items and seconds, see `pscr_engine.records.ALL_COUNTS`.
        waiting: stage → images that wait for it or are in it.
        chunks: "at_workers" → chunks that workers have; "returned" → chunks that wait for another worker.
        chunks_done: chunks that this process has committed.
        chunks_returned: how often a chunk was given back, its worker being gone.
        workers: device → workers that are ready.
        workers_lost: workers that were ready and are gone.
    """

    backend: str = ""
    total: int | None = None
    done: int = 0
    status: Mapping[str, int] = field(default_factory=dict)
    uncommitted: int = 0
    seconds: float = 0.0
    startup_seconds: float = 0.0
    images_per_second: float = 0.0
    counts: StageCounts = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    chunks: Mapping[str, int] = field(default_factory=dict)
    chunks_done: int = 0
    chunks_returned: int = 0
    workers: Mapping[str, int] = field(default_factory=dict)
    workers_lost: int = 0
