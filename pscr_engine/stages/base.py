"""What a backend's stages look like: the steps from encoded images to scores, and the settings that they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple, Protocol

from ..host import usable_cpus
from ..records import MicroBatch, RunStats
from ..sampling import Sampling
from .decode import DecodeOptions
from .fetch import Fetcher

DEFAULT_VERIFIED_SHARE = 0.001
# Enough queries to make the hand-over between threads cheap, few enough to keep memory small.
_MICRO_BATCH_ROWS = 16


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
class StageSettings:
    """What a run asks of its stages.

    Args:
        sampling: how patches are taken.
        decoding: what images are accepted.
        batch_size: B, images per batch.
        features: whether to keep each image's features.
        exemplar_scores: whether to keep each image's score against each exemplar.
        decode_threads: how many images are decoded at once.
        verify_decoding: share of the images from a GPU's decoder that are compared with Pillow's.
        stats: counters of every stage, added to as the run goes on.
        fetcher: reads images, also those that were left for later since too many bytes were held.
        stopping: set once the run is to end; whoever waits inside a stage stops waiting.
    """

    sampling: Sampling
    decoding: DecodeOptions
    batch_size: int
    features: bool = False
    exemplar_scores: bool = False
    decode_threads: int = field(default_factory=usable_cpus)
    verify_decoding: float = DEFAULT_VERIFIED_SHARE
    stats: RunStats = field(default_factory=RunStats)
    fetcher: Fetcher = field(default_factory=Fetcher)
    stopping: Event = field(default_factory=Event)

    @property
    def rows(self) -> int:
        """Return how many queries a micro-batch has at most: whole batches."""
        return self.batch_size * math.ceil(_MICRO_BATCH_ROWS / self.batch_size)


class StageChain(Protocol):
    """The stages of a backend, from fetched queries to scored ones."""

    @property
    def stages(self) -> Sequence[Stage]:
        """Return the stages in the order in which micro-batches go through them."""
        ...

    def close(self) -> None:
        """Give buffers back. No stage runs any more."""
        ...


def run_through(chain: StageChain, batch: MicroBatch) -> MicroBatch:
    """Take one micro-batch through all stages, one after the other, in this thread."""
    for stage in chain.stages:
        batch = stage.run(batch)
    return batch
