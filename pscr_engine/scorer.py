"""The Python API."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Literal, Self, Unpack, cast, overload

import numpy as np
from PIL import Image

from .backends import Backend, create_backend
from .bundle import Bundle
from .errors import UsageError
from .models import BundleChoice, choose_bundle
from .scoring import ImageLike, ScoredImage, ScoreOptions, is_file, score_images
from .stages.decode import DEFAULT_MAX_PIXELS
from .stores.uri import Place

if TYPE_CHECKING:
    from .config import ScoreConfig
    from .explain import Explanation
    from .runners.progress import Report
    from .runners.run import RunResult


class Scorer:
    """Scores images with one bundle on one device.

    Use `Scorer.open`. A scorer is not safe for use by several threads at once. On a GPU it holds memory there
    until `close`, or until the end of a `with` statement.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Place | BundleChoice | None = None,
        *,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
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

        Raises:
            BundleError: no bundle there, or a damaged one.
            UsageError, BackendError, MissingDependencyError: this host can't run it as asked.
        """
        choice = choose_bundle(bundle)
        opened = choice.open()
        engine = create_backend(opened, backend=backend, device=device, precision=precision, threads=threads)
        choice.log()  # now that it can be used: errors are one line
        return cls(opened, engine)

    def close(self) -> None:
        """Give a GPU's memory back. The scorer can't be used any more, on whatever it runs; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self.backend.close()

    def __enter__(self) -> Self:
        """Return the scorer."""
        self._require_open()
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
            images: a path, encoded bytes, a binary file object (read from its beginning, and left open), a PIL image
                or a uint8 [H, W, 3] RGB array; or an iterable of such, an array [N, H, W, 3] among them.
            **options: features, exemplar_scores, batch_size, small_images and max_pixels, see `ScoreOptions`.

        Returns:
            One `ScoredImage` for one image; a list in the given order for an iterable. An image
            that can't be scored is in it too, with its status: it never raises.

        Raises:
            TypeError: something that is no image.
            UsageError: a batch size below 1, or the scorer is closed.
        """
        # Files and buffers could be iterated over, too.
        single = (
            isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)
            or (isinstance(images, np.ndarray) and images.ndim == 3)
            or is_file(images)
        )
        several = [cast("ImageLike", images)] if single else cast("Iterable[ImageLike]", images)
        results = list(self.stream(several, **options))
        return results[0] if single else results

    def stream(self, images: Iterable[ImageLike], **options: Unpack[ScoreOptions]) -> Generator[ScoredImage]:
        """Score images as they come, without end if need be: memory does not grow with their number.

        Some micro-batches are read ahead of what is yielded. Close the generator to stop early.

        Args:
            images: as for `score`; taken from another thread.
            **options: as for `score`.

        Yields:
            One `ScoredImage` per image, in the given order.

        Raises:
            TypeError: something that is no image.
            UsageError: a batch size below 1, or the scorer is closed, be it meanwhile.
        """
        self._require_open()
        return self._until_closed(score_images(self.bundle, self.backend, images, **options))

    def _until_closed(self, scored: Generator[ScoredImage]) -> Generator[ScoredImage]:
        with closing(scored):
            for image in scored:
                yield image
                self._require_open()

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError("this scorer is closed; open another one with Scorer.open")

    def explain(
        self,
        image: ImageLike,
        *,
        nearest: int = 5,
        small_images: Literal["upscale", "error"] = "upscale",
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Explanation:
        """Say where an image's score comes from: each patch's own score, and the exemplars that it is most like.

        Takes as long as scoring D + 1 images.

        Args:
            image: as for `score`.
            nearest: how many exemplars, by Euclidean distance of features.
            small_images: see `score`.
            max_pixels: see `score`.

        Raises:
            ImageError: the image can't be scored.
            TypeError: something that is no image.
            UsageError: the scorer is closed.
        """
        self._require_open()
        from .explain.compute import explain

        return explain(
            self.bundle, self.backend, image, nearest=nearest, small_images=small_images, max_pixels=max_pixels
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
