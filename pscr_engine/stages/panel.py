"""The stages of several models on the processor: an image is decoded once, its patches are cut once per sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import NamedTuple

from ..records import MicroBatch, Pixels, Query
from ..sampling import Sampling
from .base import Stage, StageSettings
from .decode import DecodeOptions, check_size
from .infer import Inference, PatchScorer
from .on_host import read_and_decode
from .sample import Sampler


class Member(NamedTuple):
    """A model among several.

    Args:
        name: of the model, under which `Query.results` has what it makes of an image.
        scorer: scores the patches.
        sampling: how its patches are taken.
        batch_size: B, images per batch.
    """

    name: str
    scorer: PatchScorer
    sampling: Sampling
    batch_size: int


@dataclass(frozen=True, slots=True)
class _Cut:
    """The models that take their patches in the same way, and what cuts these patches for all of them."""

    decoding: DecodeOptions
    sampler: Sampler
    models: dict[str, Inference]

    def take(self, image: Query, pixels: Pixels, batch: MicroBatch, buffer: Pixels) -> Query:
        """Add an image's patches to `batch`; return a query of its own, with what kept it from that."""
        query = Query(image.row, pixels=pixels, digest=image.digest, width=image.width, height=image.height)
        check_size(query, self.decoding)
        self.sampler.sample(query, batch, buffer)
        if query.ok:
            batch.queries.append(image)
        return query


class PanelStages:
    """The stages of several models that take patches from the host's memory.

    Each model gets what it would get alone: the same pixels, patches and batches. What keeps an image from one model's
    score is the image's failure.

    Args:
        members: the models.
        settings: of the run; sampling, patch size and batch size are each model's own.
    """

    def __init__(self, members: Sequence[Member], settings: StageSettings) -> None:
        self._settings = settings
        samplings = list(dict.fromkeys(member.sampling for member in members))
        limits, small = settings.decoding.max_pixels, settings.decoding.small_images
        self._cuts = []
        for sampling in samplings:
            own = {
                member.name: Inference(
                    member.scorer,
                    replace(settings, sampling=sampling, batch_size=member.batch_size),
                    counts=False,
                )
                for member in members
                if member.sampling == sampling
            }
            decoding = DecodeOptions.for_sampling(sampling, limits, small)
            self._cuts.append(_Cut(decoding, Sampler(sampling, settings.rows, limits), own))
        # Images that are too small for all of them need not be decoded; for one of them, `_Cut.take` sees.
        self._decoding = replace(
            settings.decoding,
            patch_size=min(sampling.patch_size for sampling in samplings),
            digest=any(cut.decoding.digest for cut in self._cuts),
        )
        self.stages = (
            Stage("decode", self.decode_and_sample, settings.decode_threads),
            Stage("infer", self.infer, max(member.scorer.runs for member in members)),
        )

    def decode_and_sample(self, batch: MicroBatch) -> MicroBatch:
        """Decode and sample image by image in one thread, so that few decoded images are in memory, however large."""
        if not batch.queries:
            return batch
        stats = self._settings.stats
        cuts = [(cut, MicroBatch([]), cut.sampler.begin()) for cut in self._cuts]
        decoding = sampling = 0.0
        for query in batch.queries:
            decoding += read_and_decode(query, self._settings, self._decoding)
            decoded = perf_counter()
            if query.ok and (pixels := query.pixels) is not None:
                query.results = {}
                taken = [cut.take(query, pixels, own, buffer) for cut, own, buffer in cuts]
                query.pixels = None
                self._fail_too_small(query, taken)
            sampling += perf_counter() - decoded
        stats.decode.add(len(batch.queries), decoding)
        stats.sample.add(sum(query.ok for query in batch.queries), sampling)
        for cut, own, buffer in cuts:
            cut.sampler.finish(own, buffer)
        batch.work = [own for _, own, _ in cuts]
        return batch

    def _fail_too_small(self, query: Query, taken: Sequence[Query]) -> None:
        """Fail an image that some cut had no patches of; the reason names the model, unless it is that of them all."""
        errors = {each.error for each in taken}
        for cut, each in zip(self._cuts, taken, strict=True):
            if not each.ok:
                _fail(query, "" if len(errors) == 1 else next(iter(cut.models)), each)

    def infer(self, batch: MicroBatch) -> MicroBatch:
        """Score by one model after the other; each image counts once."""
        images = sum(query.ok for query in batch.queries)
        for cut, own in zip(self._cuts, batch.work or (), strict=False):
            assert own.patches is not None
            for name, inference in cut.models.items():
                results = [Query(query.row) for query in own.queries]
                inference.score(results, own.patches)
                for query, result in zip(own.queries, results, strict=True):
                    if not result.ok:
                        _fail(query, name, result)
                    elif query.results is not None:
                        query.results[name] = result
            cut.sampler.release(own)
        self._settings.stats.infer.add(images, 0.0)
        batch.work = None
        return batch

    def close(self) -> None:
        """End its threads. Its buffers are ordinary memory."""
        for cut in self._cuts:
            for inference in cut.models.values():
                inference.close()


def _fail(query: Query, name: str, result: Query) -> None:
    """Make what kept a model from scoring an image the image's failure; of several, the first is told."""
    if query.ok:
        query.fail(result.status, f"{name}: {result.error}" if name else str(result.error))
