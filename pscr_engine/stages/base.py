"""What lies between fetch and sink: the stages that a backend brings along, on the processor or on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple, Protocol

from ..records import MicroBatch, RunStats
from ..sampling import Sampling
from .decode import DecodeOptions
from .fetch import Fetcher

DEFAULT_VERIFIED_SHARE = 0.001


class Stage(NamedTuple):
    """A step that micro-batches go through, in order.

    Args:
        name: for threads and messages.
        run: takes a micro-batch and hands it on.
        threads: how many micro-batches may be in `run` at once.
    """

    name: str
    run: Callable[[MicroBatch], MicroBatch]
    threads: int = 1


@dataclass(frozen=True, slots=True)
class PathSettings:
    """What a run asks of a path.

    Args:
        sampling: how patches are taken.
        decoding: what images are accepted.
        batch_size: B, images per batch.
        rows: queries of a micro-batch at most; whole batches.
        features: whether to keep each image's features.
        exemplar_scores: whether to keep each image's score against each exemplar.
        decode_threads: how many images are decoded at once.
        stats: counters of every stage.
        stopping: set once the run is to end; whoever waits inside a stage stops waiting.
        fetcher: reads images that were left for later, since too many bytes were held.
        verify_decoding: share of the images from a GPU's decoder that are compared with Pillow's.
    """

    sampling: Sampling
    decoding: DecodeOptions
    batch_size: int
    rows: int
    features: bool = False
    exemplar_scores: bool = False
    decode_threads: int = 1
    stats: RunStats = field(default_factory=RunStats)
    stopping: Event = field(default_factory=Event)
    fetcher: Fetcher = field(default_factory=Fetcher)
    verify_decoding: float = DEFAULT_VERIFIED_SHARE


class Path(Protocol):
    """From fetched queries to scored ones."""

    @property
    def stages(self) -> Sequence[Stage]:
        """In the order in which micro-batches go through them."""
        ...

    def close(self) -> None:
        """Give buffers back. No stage runs any more."""
        ...
