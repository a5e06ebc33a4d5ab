"""Scores batches of a Ray Data pipeline. Needs no Ray: a batch is a dictionary of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ...backends import create_backend
from ...errors import UsageError
from ...models import choose_bundle
from ...records import Status
from ...scoring import ScoredImage, score_images
from ...stages.decode import DEFAULT_MAX_PIXELS
from ...stores.uri import Place

Batch = dict[str, Any]
"""Column → array with one value per row."""


class ScoreBatch:
    """For `Dataset.map_batches`: a batch comes back with its rows' scores.

    ::

        images.map_batches(ScoreBatch, fn_constructor_args=("model.pscr",), batch_size=256, concurrency=4, num_cpus=4)

    Adds the columns score and score_std (float32, NaN where there is none: look at status, or null it there),
    status and error (text, "" without an error), width and height (int32, 0 where unknown), and features if wanted.

    Args:
        bundle: folder that `pscr-engine export` made, the URI of its copy in an object store, or the name of a
            shipped model. A relative path starts from wherever Ray has the worker.
        column: with the images: paths, URIs of object stores, encoded bytes, {bytes, path} structs, or
            decoded images, uint8 [H, W, 3]. None names no image: its row is "missing".
        device: "cpu", "cuda:N" or "auto"; with `num_gpus=1`, "auto" is the GPU that Ray gave.
        backend: see `Scorer.open`.
        precision: see `Scorer.open`.
        threads: cores that it may use, on a CPU: what `num_cpus` is; None for all of the node's.
        features: whether to add a column of features, float32 [N, C]; NaN where there are none.
        small_images: "upscale" an image with a side below the patch size, or make it an "error".
        max_pixels: images with more pixels get the status too_large.

    Raises:
        PscrError: see `Scorer.open`.
    """

    def __init__(
        self,
        bundle: str | Place,
        *,
        column: str = "path",
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        features: bool = False,
        small_images: Literal["upscale", "error"] = "upscale",
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        choice = choose_bundle(bundle)
        self._bundle = choice.open()
        self._backend = create_backend(
            self._bundle, backend=backend, device=device, precision=precision, threads=threads
        )
        choice.log()  # now that it can be used: errors are one line
        self._column, self._features = column, features
        self._options: dict[str, Any] = {"small_images": small_images, "max_pixels": max_pixels, "layout": "hwc"}

    def __call__(self, batch: Mapping[str, Any]) -> Batch:
        """Score a batch.

        Raises:
            UsageError: it lacks the column.
            TypeError: the column holds something that is no image.
        """
        if self._column not in batch:
            raise UsageError(
                f"ScoreBatch: no column {self._column!r} (columns: {', '.join(batch)}); name it as column="
            )
        images = [_image(value) for value in batch[self._column]]
        there = [image for image in images if image is not None]
        scored = score_images(self._bundle, self._backend, there, features=self._features, **self._options)
        outcomes = iter(list(scored) if there else [])
        results = [_NO_IMAGE if image is None else next(outcomes) for image in images]
        return {**batch, **_columns(results), **(self._feature_column(results) if self._features else {})}

    def _feature_column(self, results: list[ScoredImage]) -> Batch:
        nothing = np.full(self._bundle.info.feature_size, np.nan, np.float32)
        vectors = [nothing if result.features is None else result.features for result in results]
        return {"features": np.stack(vectors) if vectors else np.empty((0, len(nothing)), np.float32)}


_NO_IMAGE = ScoredImage(Status.MISSING, "the row names no image", None, None, None, None)


def _image(value: Any) -> Any:
    if isinstance(value, Mapping):  # Hugging Face's image struct
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, np.str_ | np.bytes_):
        value = value.item()
    return None if value is None or (isinstance(value, str) and not value) else value


def _columns(results: list[ScoredImage]) -> Batch:
    def floats(values: list[float | None]) -> Any:
        return np.array([np.nan if value is None else value for value in values], np.float32)

    return {
        "score": floats([result.score for result in results]),
        "score_std": floats([result.score_std for result in results]),
        "status": np.array([result.status.value for result in results], object),
        "error": np.array([result.error or "" for result in results], object),
        "width": np.array([result.width or 0 for result in results], np.int32),
        "height": np.array([result.height or 0 for result in results], np.int32),
    }
