"""Score images with an opened bundle and backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .records import Query, Status
from .stores.uri import is_stored

if TYPE_CHECKING:
    pass


ImageLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""A path, a URI of an object store, encoded bytes, a PIL image, or uint8 [H, W, 3] RGB."""


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """The outcome for one image.

    Args:
        status: "ok", or why there is no score.
        error: what went wrong, in words; None when ok.
        score: mean over exemplars of label + delta, on the label scale; None when not ok.
        score_std: population standard deviation over exemplars of label + delta; None when not ok.
        width, height: size in pixels; None if it never became known.
        features: float32 [C] if asked for.
        exemplar_scores: float32 [M], label + delta per exemplar, if asked for.
    """

    status: Status
    error: str | None
    score: float | None
    score_std: float | None
    width: int | None
    height: int | None
    features: NDArray[np.float32] | None = None
    exemplar_scores: NDArray[np.float32] | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a score."""
        return self.status is Status.OK


def _queries(images: Iterable[Any]) -> Iterator[Query]:
    for row, image in enumerate(images):
        if isinstance(image, str) and is_stored(image):
            yield Query(row, path=image, uri=image)
        elif isinstance(image, str | os.PathLike):
            yield Query(row, path=os.fspath(image), location=os.fspath(image))
        elif isinstance(image, bytes):
            yield Query(row, data=image)
        elif isinstance(image, Image.Image):
            yield _from_pil(row, image)
        elif isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise TypeError(f"image {row} is an array {image.dtype} {list(image.shape)}, not uint8 [H, W, 3] RGB")
            # A copy: images are read ahead, and the caller may use the array again.
            yield Query(row, pixels=image.copy())
        else:
            raise TypeError(
                f"image {row} is a {type(image).__name__}, not a path, bytes, PIL image or uint8 [H, W, 3] array"
            )


def _from_pil(row: int, image: Image.Image) -> Query:
    query = Query(row)
    try:
        query.pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # noqa: BLE001 - a lazily opened file may turn out to be broken here
        query.fail(Status.UNDECODABLE, f"{type(error).__name__}: {error}")
    return query


def _scored_image(query: Query) -> ScoredImage:
    return ScoredImage(
        query.status,
        query.error,
        query.score,
        query.score_std,
        query.width,
        query.height,
        query.features,
        query.exemplar_scores,
    )
