"""The stages on the processor: decode and sample in many threads, infer in as many as the backend wants."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from ..records import MicroBatch
from .base import Stage, StageSettings
from .decode import decode
from .infer import PatchScorer, infer
from .sample import Sampler


class HostStages:
    """The stages of a backend that takes patches from the host's memory.

    Args:
        backend: scores the patches.
        settings: of the run.
    """

    def __init__(self, backend: PatchScorer, settings: StageSettings) -> None:
        self._backend, self._settings = backend, settings
        self._sampler = Sampler(settings.sampling, settings.rows, settings.decoding.max_pixels)
        # Batches of two micro-batches share these threads: none of them idles while another has batches left.
        self._runs = ThreadPoolExecutor(backend.runs, "infer") if backend.runs > 1 else None
        self.stages = (
            Stage("decode", self.decode_and_sample, settings.decode_threads),
            Stage("infer", self.infer, backend.runs),
        )

    def decode_and_sample(self, batch: MicroBatch) -> MicroBatch:
        """Decode and sample image by image in one thread, so that few decoded images are in memory, however large."""
        if not batch.queries:
            return batch
        stats, buffer = self._settings.stats, self._sampler.begin()
        decoding = sampling = 0.0
        for query in batch.queries:
            if query.data is None and query.pixels is None:
                with stats.fetch.measure(0):
                    self._settings.fetcher.fetch(query)
            start = perf_counter()
            decode(query, self._settings.decoding)
            decoded = perf_counter()
            self._sampler.sample(query, batch, buffer)
            decoding += decoded - start
            sampling += perf_counter() - decoded
        stats.decode.add(len(batch.queries), decoding)
        stats.sample.add(len(batch.sampled), sampling)
        self._sampler.finish(batch, buffer)
        return batch

    def infer(self, batch: MicroBatch) -> MicroBatch:
        """Score batch by batch; side by side, if the backend wants several at once."""
        size = self._settings.batch_size
        if batch.patches is None:
            return batch
        starts = range(0, len(batch.sampled), size)
        if self._runs is None:
            for start in starts:
                self._infer(batch, start)
        else:
            for done in [self._runs.submit(self._infer, batch, start) for start in starts]:
                done.result()
        self._sampler.release(batch)
        return batch

    def _infer(self, batch: MicroBatch, start: int) -> None:
        s, D = self._settings, self._settings.sampling.patches
        assert batch.patches is not None
        if s.stopping.is_set():
            return
        queries = batch.sampled[start : start + s.batch_size]
        patches = batch.patches[start * D : (start + len(queries)) * D]
        with s.stats.infer.measure(len(queries)):
            infer(self._backend, queries, patches, features=s.features, exemplar_scores=s.exemplar_scores)

    def close(self) -> None:
        """End its threads. Its buffers are ordinary memory."""
        if self._runs is not None:
            self._runs.shutdown(cancel_futures=True)
