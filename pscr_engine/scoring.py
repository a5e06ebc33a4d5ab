"""Score images with an opened bundle and backend."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypedDict, TypeGuard, Unpack, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .backends.base import Backend
from .bundle import Bundle
from .errors import UsageError
from .manifests.queries import QueryMaker
from .pipeline import Pipeline
from .records import Query, Status
from .stages.base import StageSettings
from .stages.decode import DEFAULT_MAX_PIXELS, DecodeOptions, why_undecodable
from .stores.uri import WEB_SCHEMES, scheme_of


class BinaryFile(Protocol):
    """An object with a method `read` that returns bytes: an open file, BytesIO."""

    def read(self, size: int = -1, /) -> bytes:
        """Return `size` bytes, or all that is left."""
        ...


ImageLike = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Image.Image | NDArray[np.uint8]
"""A path, a `file:` URI or one of an object store, encoded bytes, a file object with them, a PIL image, or uint8
[H, W, 3] RGB."""

_HERE = QueryMaker(Path())


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
        """Tell whether there is a score."""
        return self.status is Status.OK


class ScoreOptions(TypedDict, total=False):
    """How images are scored.

    Args:
        features: keep each image's features, float32 [C].
        exemplar_scores: keep each image's score against each exemplar, float32 [M].
        batch_size: images per batch; None for the backend's own choice.
        small_images: "upscale" an image with a side below the patch size, or make it an "error".
        max_pixels: images with more pixels get the status too_large.
    """

    features: bool
    exemplar_scores: bool
    batch_size: int | None
    small_images: Literal["upscale", "error"]
    max_pixels: int


def score_images(
    bundle: Bundle, backend: Backend, images: Iterable[ImageLike], **options: Unpack[ScoreOptions]
) -> Generator[ScoredImage]:
    """Score images as they come, without end if need be: memory does not grow with their number.

    Some micro-batches are read ahead of what is yielded. Close the generator to stop early.

    Args:
        bundle: the opened bundle that `backend` runs.
        backend: scores the patches.
        images: taken one by one, from another thread.
        **options: those of `ScoreOptions`.

    Yields:
        One `ScoredImage` per image, in the given order.

    Raises:
        TypeError: something that is no image.
        UsageError: a batch size below 1.
    """
    batch_size = options.get("batch_size")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size {batch_size}: must be at least 1")
    sampling = bundle.info.sampling
    limits = options.get("max_pixels", DEFAULT_MAX_PIXELS), options.get("small_images", "upscale")
    settings = StageSettings(
        sampling,
        DecodeOptions.for_sampling(sampling, *limits),
        batch_size or backend.batch_size,
        features=options.get("features", False),
        exemplar_scores=options.get("exemplar_scores", False),
    )
    return (_scored_image(query) for query in Pipeline(backend, settings).run(queries_of(images)))


def queries_of(images: Iterable[Any]) -> Iterator[Query]:
    """Turn images into queries, one by one.

    Raises:
        TypeError: something that is no image.
    """
    for row, image in enumerate(images):
        if isinstance(image, str) and (scheme_of(image) or image[:5].lower() == "data:"):
            yield _named(row, image)
        elif isinstance(image, str | os.PathLike):
            yield Query(row, path=os.fspath(image), location=os.fspath(image))
        elif isinstance(image, bytes | bytearray | memoryview):
            yield Query(row, data=bytes(image))
        elif isinstance(image, Image.Image):
            yield _from_pil(row, image)
        elif isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise TypeError(f"image {row} is an array {image.dtype} {list(image.shape)}, not uint8 [H, W, 3] RGB")
            # A copy: images are read ahead, and the caller may use the array again.
            yield Query(row, pixels=image.copy())
        elif is_file(image):
            yield _from_file(row, image)
        else:
            raise TypeError(
                f"image {row} is a {type(image).__name__}, not a path, bytes, binary file, PIL image or "
                "uint8 [H, W, 3] array"
            )


def is_file(image: object) -> TypeGuard[BinaryFile]:
    """Tell whether something has a method `read`, as files have; wrappers of files hand it on in their own ways."""
    return callable(getattr(image, "read", None))


def _from_file(row: int, file: BinaryFile) -> Query:
    query = Query(row)
    try:
        # From its beginning, as Pillow does: what has just been written to a BytesIO leaves it at its end.
        if getattr(file, "seekable", lambda: False)():
            cast("BinaryIO", file).seek(0)
        data = file.read()
    except OSError as error:
        query.fail(Status.UNREADABLE, str(error))
        return query
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"image {row} is a file that gives {type(data).__name__}, not bytes: open it with mode 'rb'")
    query.data = bytes(data)
    return query


def _named(row: int, uri: str) -> Query:
    """Make the query of an image that a URI names, as a manifest's row would; the web is for runs alone."""
    query = _HERE.make(row, uri)
    if (scheme := scheme_of(uri)) in WEB_SCHEMES:
        query.fail(Status.UNREADABLE, f"{scheme}:// images are fetched only by runs over a manifest; give the bytes")
    return query


def _from_pil(row: int, image: Image.Image) -> Query:
    query = Query(row)
    try:
        query.pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # noqa: BLE001 - a lazily opened file may turn out to be broken here
        query.fail(*why_undecodable(error))
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
