"""The stages on the processor: decode and sample in many threads, infer in as many as the backend wants."""

from __future__ import annotations

from time import perf_counter

from ..records import MicroBatch, Query
from .base import Stage, StageSettings
from .decode import DecodeOptions, decode
from .infer import BatchInference
from .sample import Sampler


def read_and_decode(query: Query, settings: StageSettings, options: DecodeOptions) -> float:
    """Decode an image, and read it before if that was left for later; return the seconds that decoding took."""
    if query.data is None and query.pixels is None:
        with settings.stats.fetch.measure(0):
            settings.fetcher.fetch(query)
    start = perf_counter()
    decode(query, options)
    return perf_counter() - start


class HostStages:
    """The stages of a backend that takes patches from the host's memory.

    Args:
        inference: scores the patches.
        settings: of the run.
    """

    def __init__(self, inference: BatchInference, settings: StageSettings) -> None:
        self._settings = settings
        self._sampler = Sampler(settings.sampling, settings.rows, settings.decoding.max_pixels)
        self._inference = inference
        self.stages = (
            Stage("decode", self.decode_and_sample, settings.decode_threads),
            Stage("infer", self.infer, inference.runs),
        )

    def decode_and_sample(self, batch: MicroBatch) -> MicroBatch:
        """Decode and sample image by image in one thread, so that few decoded images are in memory, however large."""
        if not batch.queries:
            return batch
        stats, buffer = self._settings.stats, self._sampler.begin()
        decoding = sampling = 0.0
        for query in batch.queries:
            decoding += read_and_decode(query, self._settings, self._settings.decoding)
            decoded = perf_counter()
            self._sampler.sample(query, batch, buffer)
            sampling += perf_counter() - decoded
        stats.decode.add(len(batch.queries), decoding)
        stats.sample.add(len(batch.sampled), sampling)
        self._sampler.finish(batch, buffer)
        return batch

    def infer(self, batch: MicroBatch) -> MicroBatch:
        """Score what has been sampled, and take the buffer back."""
        if batch.patches is None:
            return batch
        self._inference.score(batch.sampled, batch.patches)
        self._sampler.release(batch)
        return batch

    def close(self) -> None:
        """End its threads. Its buffers are ordinary memory."""
        self._inference.close()
