"""The data classes that flow between stages.

One record type, `Query`, goes through every stage. A stage either fills in its own fields or calls
`Query.fail`; later stages pass a failed query on untouched, so that each manifest row ends as
exactly one output row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A decoded image, uint8 [H, W, 3], RGB."""

MAX_FILE_BYTES = 512 * 2**20
"""Larger files are not read: no image within any sane limit on pixels needs them."""

HELD_BYTES = 64 * 2**20
"""Queries that hold so many bytes of images are enough for a group, however few they are."""

STAMP_BYTES = 16
"""Length of `Query.stamp`."""


class Status(StrEnum):
    """What became of one manifest row."""

    OK = "ok"
    MISSING = "missing"  # there is nothing at that path, or the row names no image
    UNREADABLE = "unreadable"  # its entry can't be followed or isn't allowed, or its bytes can't be read
    UNDECODABLE = "undecodable"  # the bytes are not an image, or a broken one
    TOO_LARGE = "too_large"  # over the limit on pixels or on bytes
    TOO_SMALL = "too_small"  # a side is below the patch size and can't, or may not, be upscaled


@dataclass(frozen=True, slots=True)
class EarlyResult:
    """What was decided of an image, and by how many of its patches.

    Args:
        decision: "keep" or "drop".
        patches_used: how many patches were scored; with all of them, the score is the exact one.
        score_low, score_high: between which the exact score is.
    """

    decision: str
    patches_used: int
    score_low: float
    score_high: float


@dataclass(slots=True)
class Query:
    """One image on its way from manifest row to score.

    Args:
        row: position in the manifest, from 0.
        path: the image's name as the manifest gives it; None for images without one.
        id: the manifest's identifier of the row, whatever its type.
        location: file to read; None if `data` or `pixels` is there from the start.
        uri: where to fetch the image from, in place of `location`, if that is no file of this host.
        data: encoded bytes, from the manifest or a fetcher; dropped once decoded, and by `fail`.
        pixels: decoded image, uint8 [H, W, 3]; dropped once sampled.
        digest: 16 bytes that depend on the image's content alone; only `rps` needs it.
        width, height: size of the decoded image in pixels.
        score: mean over exemplars of label + delta, on the label scale.
        score_std: population standard deviation over exemplars of label + delta.
        features: float32 [C], the mean of the patches' features.
        exemplar_scores: float32 [M], label + delta for each exemplar.
        stamp: 16 bytes that say where the image was read and in which state it was there; None if it was nowhere that
            tells.
        sha256: digest of the image's bytes, where a run asks for it.
        taken_from: the earlier run's output that the result is taken over from; None if the image is scored here.
        repeated: whether the result is that of an image with the same bytes, which this run has scored before.
        early: what was decided by some of the patches, in a run that decides.
        results: name of a model → what it made of this image, in a run of several; None in a run of one.
    """

    row: int
    path: str | None = None
    id: Any = None
    location: str | None = None
    uri: str | None = None
    data: bytes | None = None
    pixels: Pixels | None = None
    digest: bytes = b""
    status: Status = Status.OK
    error: str | None = None
    width: int | None = None
    height: int | None = None
    score: float | None = None
    score_std: float | None = None
    features: NDArray[np.float32] | None = None
    exemplar_scores: NDArray[np.float32] | None = None
    stamp: bytes | None = None
    sha256: bytes | None = None
    taken_from: str | None = None
    repeated: bool = False
    early: EarlyResult | None = None
    results: dict[str, Query] | None = None

    @property
    def ok(self) -> bool:
        """Tell whether stages have work on it: nothing has gone wrong so far, and it has no result from elsewhere."""
        return self.status is Status.OK and self.taken_from is None and not self.repeated

    def note_state(self, state: str) -> None:
        """Set `stamp` from where the image is and what changes with its content there."""
        try:  # not normalised: with symbolic links, "a/../b" need not be "b"
            where = self.uri if self.uri is not None else os.path.join(os.getcwd(), self.location or "")  # noqa: PTH109, PTH118
            text = f"{where}\0{state}".encode("utf-8", "surrogatepass")
        except OSError:  # the working directory has gone
            return
        self.stamp = hashlib.blake2b(text, digest_size=STAMP_BYTES).digest()

    @property
    def bytes_held(self) -> int:
        """Return the bytes of memory that the image takes now, encoded or decoded; 0 once it is sampled."""
        return len(self.data) if self.data is not None else 0 if self.pixels is None else self.pixels.nbytes

    def fail(self, status: Status, error: str) -> None:
        """Record why this image has no score, and let go of its bytes."""
        self.status = status
        self.error = error if len(error) <= 500 else error[:497] + "..."
        self.data = None
        self.pixels = None


def take_group(queries: Iterator[Query], most: int) -> list[Query]:
    """Take up to `most` queries, fewer where they hold `HELD_BYTES` of images; none at the end."""
    group: list[Query] = []
    held = 0
    for query in islice(queries, most):
        group.append(query)
        held += query.bytes_held
        if held >= HELD_BYTES:
            break
    return group


_RESULTS = ("score_std", "score", "features")


def result_column(kind: str, model: str) -> str:
    """Return the name of a column of results, "score" for example: a model's in a run of several, which have names.

    Args:
        kind: "score", "score_std" or "features".
        model: the model's name; "" in a run of one.
    """
    return f"{kind}_{model}" if model else kind


def result_of_column(column: str) -> tuple[str, str] | None:
    """Return kind and model of a column of results, as `result_column` takes them; None for any other column."""
    for kind in _RESULTS:  # no model is called std or std_…
        if column == kind or column.startswith(f"{kind}_"):
            return kind, column[len(kind) + 1 :]
    return None


@dataclass(slots=True)
class MicroBatch:
    """A few consecutive queries, what the stages hand on to one another.

    Args:
        queries: in the order of their rows.
        sampled: those of them that have patches, in the same order.
        patches: uint8 [len(sampled)·D, P, P, 3]; None before sampling and after inference.
        work: what the stages on a GPU hand on to one another.
        tag: whatever the maker of the batch wants to find on it again. Stages leave it alone.
    """

    queries: list[Query]
    sampled: list[Query] = field(default_factory=list)
    patches: Pixels | None = None
    work: Any = None
    tag: Any = None


@dataclass(slots=True)
class StageStats:
    """How much a stage has done: items and the seconds spent on them."""

    items: int = 0
    seconds: float = 0.0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @contextmanager
    def measure(self, items: int) -> Iterator[None]:
        """Count `items` and the time that the `with` body takes. Several threads may measure at once."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add(items, perf_counter() - start)

    def add(self, items: int, seconds: float) -> None:
        """Count `items` that took `seconds`."""
        with self._lock:
            self.items += items
            self.seconds += seconds


@dataclass(slots=True)
class RunStats:
    """`StageStats` of every stage of one run, of checks, and of traffic, whose items are bytes or requests."""

    source: StageStats = field(default_factory=StageStats)
    fetch: StageStats = field(default_factory=StageStats)
    decode: StageStats = field(default_factory=StageStats)
    sample: StageStats = field(default_factory=StageStats)
    infer: StageStats = field(default_factory=StageStats)
    sink: StageStats = field(default_factory=StageStats)
    verify: StageStats = field(default_factory=StageStats)
    mismatch: StageStats = field(default_factory=StageStats)
    read: StageStats = field(default_factory=StageStats)
    written: StageStats = field(default_factory=StageStats)
    retry: StageStats = field(default_factory=StageStats)
    repeated: StageStats = field(default_factory=StageStats)

    def counts(self) -> StageCounts:
        """Return stage → (items, seconds) so far; checks and traffic only if there were any."""
        found = {name: (stats.items, stats.seconds) for name in ALL_COUNTS for stats in (getattr(self, name),)}
        return {name: count for name, count in found.items() if name in STAGES or count[0]}


STAGES = ("source", "fetch", "decode", "sample", "infer", "sink")
CHECKS = ("verify", "mismatch")
"""Images whose pixels from a GPU's decoder were compared with Pillow's, and those of them that were wrong."""
TRAFFIC = ("read", "written", "retry")
"""Bytes of encoded images, bytes of parts, and requests for images that were sent again. They take no time."""
REPEATED = ("repeated",)
"""Images that got the result of another one with the same bytes. They take no time."""
ALL_COUNTS = (*STAGES, *CHECKS, *TRAFFIC, *REPEATED)

StageCounts = dict[str, tuple[int, float]]
"""Stage → (items, seconds spent on them, added up over threads and workers)."""


def add_counts(counts: Iterable[StageCounts]) -> StageCounts:
    """Add up the counts of workers."""
    listed = list(counts)
    none = (0, 0.0)
    names = [name for name in ALL_COUNTS if name in STAGES or any(name in each for each in listed)]
    return {
        name: (sum(each.get(name, none)[0] for each in listed), sum(each.get(name, none)[1] for each in listed))
        for name in names
    }
