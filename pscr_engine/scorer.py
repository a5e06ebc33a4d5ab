"""The Python API."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from threading import Lock
from typing import TYPE_CHECKING, Literal, Self, Unpack, cast, overload

from PIL import Image

from .backends import Backend, create_backend
from .bundle import Bundle
from .models import BundleChoice, choose_bundle
from .records import Query
from .scoring import ImageLike, ScoredImage, ScoreOptions, is_file, is_single, queries_of, scored_image, stage_settings
from .serving.gatherer import Gatherer, check_limits
from .serving.stream import requests_of, score_all, stream
from .stages.arrays import Layout, is_tensor
from .stages.base import StageSettings
from .stages.decode import DEFAULT_MAX_PIXELS
from .stores.uri import Place

if TYPE_CHECKING:
    from .config import ScoreConfig
    from .explain import Explanation
    from .runners.progress import Report
    from .runners.run import RunResult


DEFAULT_MAX_WAIT_MS = 5.0
DEFAULT_MAX_WAITING = 1024


class Scorer:
    """Scores images with one bundle on one device, for many threads at once.

    Use `Scorer.open`. All methods may be called by any number of threads and tasks: what they ask for at the same time
    is gathered into batches, first come, first served. An image's neighbours in a batch don't change its score where
    the backend computes images one by one, as on a processor unless `batch_size` says otherwise; in larger batches, as
    on a GPU, the last bits may differ. Calls whose options differ share no batch.

    It has threads from its first use until `close`, or until the end of a `with` statement, and on a GPU memory. After
    a fork it is the parent's: in the child, every use raises UsageError.

    Args:
        bundle: the opened bundle that `backend` runs.
        backend: scores the patches.
        max_wait_ms: see `open`.
        max_waiting: see `open`.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        *,
        max_wait_ms: float = DEFAULT_MAX_WAIT_MS,
        max_waiting: int = DEFAULT_MAX_WAITING,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self._gatherer = Gatherer(backend, max_wait_ms=max_wait_ms, max_waiting=max_waiting)
        self._closing, self._closed = Lock(), False
        # Its threads don't know it: they end with a scorer that nobody has closed.
        weakref.finalize(self, self._gatherer.release).atexit = False

    @classmethod
    def open(
        cls,
        bundle: str | Place | BundleChoice | None = None,
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        max_wait_ms: float = DEFAULT_MAX_WAIT_MS,
        max_waiting: int = DEFAULT_MAX_WAITING,
    ) -> Self:
        """Load a bundle.

        Args:
            bundle: folder that `pscr-engine export` made, the URI of its copy in an object store, or the name of a
                shipped model; None for `model.pscr` in the current folder, or else the shipped model.
            device: "cpu", "cuda:N", or "auto" for the first GPU, or else the processor.
            backend: "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", or "auto" for the best one that can be used:
                on a processor with OpenVINO installed, the engine that was faster before a long run on this host.
            precision: "fp32", "fp16", "bf16", "int8", or "auto" for the fastest that this device runs well.
            threads: processor threads for inference; None for all usable cores.
            max_wait_ms: how long an image may wait for others to fill a batch, in milliseconds, while the device is
                busy; it never waits while the device has nothing to do, nor where batches are of one image.
            max_waiting: how many images may wait. Beyond that `score` and `stream` wait, and `score_async` raises.

        Raises:
            BundleError: no bundle there, or a damaged one.
            UsageError, BackendError, MissingDependencyError: this host can't run it as asked.
        """
        check_limits(max_wait_ms, max_waiting)  # before seconds of loading
        choice = choose_bundle(bundle)
        opened = choice.open()
        engine = create_backend(opened, backend=backend, device=device, precision=precision, threads=threads)
        choice.log()  # now that it can be used: errors are one line
        return cls(opened, engine, max_wait_ms=max_wait_ms, max_waiting=max_waiting)

    @property
    def waiting(self) -> int:
        """Return how many images wait, without those that are being scored."""
        return self._gatherer.waiting

    def close(self) -> None:
        """End its threads and give a GPU's memory back. It can't be used any more; closing twice is fine.

        Images that are being scored are finished first. Calls whose images still wait end with UsageError. In a child
        that was forked off, nothing is closed: it is the parent's.
        """
        if not self._gatherer.close():
            return
        with self._closing:
            first, self._closed = not self._closed, True
        if first:
            self.backend.close()

    def __enter__(self) -> Self:
        """Return the scorer."""
        self._gatherer.require_usable()
        return self

    def __exit__(self, *raised: object) -> None:
        """Close it."""
        self.close()

    @overload
    def score(self, images: ImageLike, **options: Unpack[ScoreOptions]) -> ScoredImage: ...  # type: ignore[overload-overlap]  # a str is an Iterable[str], too
    @overload
    def score(self, images: Iterable[ImageLike], **options: Unpack[ScoreOptions]) -> list[ScoredImage]: ...
    def score(
        self, images: ImageLike | Iterable[ImageLike], **options: Unpack[ScoreOptions]
    ) -> ScoredImage | list[ScoredImage]:
        """Score one image, or several.

        Args:
            images: a path, encoded bytes, a binary file object (read from its beginning, and left open), a PIL image,
                or an array or tensor (of PyTorch, or any that speaks DLPack, on a GPU or not) uint8 [H, W, 3] or
                [3, H, W], RGB; or an iterable of such, arrays and tensors with one more dimension among them.
            **options: features, exemplar_scores, batch_size, small_images, max_pixels and layout, see `ScoreOptions`.

        Returns:
            One `ScoredImage` for one image; a list in the given order for an iterable. An image
            that can't be scored is in it too, with its status: it never raises.

        Raises:
            TypeError: something that is no image, or may be read in two ways; an option that there isn't.
            UsageError: an option's value is not allowed, or the scorer is closed, be it meanwhile.
            PscrError: this call's images can't be scored here; those of other calls can.
        """
        settings = self._settings(options)
        several = [cast("ImageLike", images)] if is_single(images) else cast("Iterable[ImageLike]", images)
        scored = score_all(self._gatherer, queries_of(several, layout=options.get("layout")), settings)
        results = [scored_image(query) for query in scored]
        return results[0] if is_single(images) else results

    @overload
    async def score_async(self, images: ImageLike, **options: Unpack[ScoreOptions]) -> ScoredImage: ...  # type: ignore[overload-overlap]  # as above
    @overload
    async def score_async(self, images: Iterable[ImageLike], **options: Unpack[ScoreOptions]) -> list[ScoredImage]: ...
    async def score_async(
        self, images: ImageLike | Iterable[ImageLike], **options: Unpack[ScoreOptions]
    ) -> ScoredImage | list[ScoredImage]:
        """Score one image, or several, without blocking the event loop.

        Cancelling it takes images that still wait out of the queue; those that are being scored are scored for nobody.

        Args:
            images: as for `score`; an iterable is taken at once, so it has an end.
            **options: as for `score`.

        Returns:
            As `score`.

        Raises:
            BusyError: too many images wait, see `open`; none of these has been scored.
            TypeError, UsageError, PscrError: as `score`.
        """
        settings, single = self._settings(options), is_single(images)
        several = [cast("ImageLike", images)] if single else cast("Iterable[ImageLike]", images)
        queries = await _taken(several, options.get("layout"))
        requests = list(requests_of(queries, settings))
        self._gatherer.submit(*requests, wait=False)
        try:
            answers = await asyncio.gather(*(asyncio.wrap_future(request.answer) for request in requests))
        except BaseException:  # cancelled, for one
            self._gatherer.withdraw(requests)
            raise
        results = [scored_image(query) for answer in answers for query in answer]
        return results[0] if single else results

    def stream(self, images: Iterable[ImageLike], **options: Unpack[ScoreOptions]) -> Generator[ScoredImage]:
        """Score images as they come, without end if need be: memory does not grow with their number.

        Some batches are read ahead of what is yielded. Close the generator to stop early.

        Args:
            images: as for `score`; taken from another thread.
            **options: as for `score`.

        Yields:
            One `ScoredImage` per image, in the given order.

        Raises:
            TypeError, UsageError, PscrError: as `score`.
        """
        settings = self._settings(options)
        queries = queries_of(images, layout=options.get("layout"), synchronize=True)
        return self._scored(stream(self._gatherer, queries, settings))

    def _scored(self, queries: Generator[Query]) -> Generator[ScoredImage]:
        with closing(queries):
            for query in queries:  # and `self` stays open as long as somebody takes them
                yield scored_image(query)

    def _settings(self, options: ScoreOptions) -> Callable[[], StageSettings]:
        """Return what makes the stages' settings for `options`, once these and the scorer have been checked."""
        self._gatherer.require_usable()

        def settings() -> StageSettings:
            return stage_settings(self.bundle, self.backend, **options)

        settings()
        return settings

    def explain(
        self,
        image: ImageLike,
        *,
        nearest: int = 5,
        small_images: Literal["upscale", "error"] = "upscale",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        layout: Layout | None = None,
    ) -> Explanation:
        """Say where an image's score comes from: each patch's own score, and the exemplars that it is most like.

        Takes as long as scoring D + 1 images.

        Args:
            image: as for `score`.
            nearest: how many exemplars, by Euclidean distance of features.
            small_images: see `score`.
            max_pixels: see `score`.
            layout: see `score`.

        Raises:
            ImageError: the image can't be scored.
            TypeError: something that is no image.
            UsageError: the scorer is closed.
        """
        self._settings({"small_images": small_images, "max_pixels": max_pixels, "layout": layout})
        from .explain.compute import explain

        return explain(
            self.bundle,
            self.backend,
            image,
            score=self.score,
            nearest=nearest,
            small_images=small_images,
            max_pixels=max_pixels,
            layout=layout,
        )

    @staticmethod
    def score_manifest(config: ScoreConfig, progress: Report | None = None) -> RunResult:
        """Score a manifest into a folder of Parquet parts, as `pscr-engine score` does.

        Raises:
            PscrError: see `pscr_engine.runners.run.run_manifest`, and the runner's own `run`.
        """
        if config.runner == "ray":
            from .runners.ray.runner import run
        else:
            from .runners.local import run

        return run(config) if progress is None else run(config, progress)


async def _taken(images: Iterable[ImageLike], layout: Layout | None) -> list[Query]:
    """Turn images into queries, what takes long in another thread, but tensors here: they are filled for this one."""
    if is_tensor(images):
        return list(queries_of(images, layout=layout))
    listed = list(images)
    slow = any(isinstance(image, Image.Image) or is_file(image) for image in listed)
    if slow and not any(is_tensor(image) for image in listed):
        return await asyncio.to_thread(lambda: list(queries_of(listed, layout=layout)))
    return list(queries_of(listed, layout=layout))
