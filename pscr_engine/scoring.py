"""Score images with an opened bundle and backend."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
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
from .stages.arrays import LAYOUTS, Layout, as_pixels, dimensions, is_tensor, tensor_as_array
from .stages.base import StageSettings
from .stages.decode import DEFAULT_MAX_PIXELS, DecodeOptions, why_undecodable
from .stores.uri import WEB_SCHEMES, scheme_of


class BinaryFile(Protocol):
    """An object with a method `read` that returns bytes: an open file, BytesIO."""

    def read(self, size: int = -1, /) -> bytes:
        """Return `size` bytes, or all that is left."""
        ...


class Tensor(Protocol):
    """An array of another library that speaks DLPack: PyTorch's tensors, CuPy's and JAX's arrays."""

    @property
    def shape(self) -> Any:
        """Return its sizes."""
        ...

    def __dlpack__(self, **how: Any) -> Any:
        """Return a capsule with its memory."""
        ...


ImageLike = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | Image.Image | NDArray[np.uint8] | Tensor
)
"""A path, a `file:` URI or one of an object store, encoded bytes, a file object with them, a PIL image, or an array or
a tensor uint8 [H, W, 3] or [3, H, W], RGB."""

_HERE = QueryMaker(Path())


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """The outcome for one image.

    Args:
        status: "ok", or why there is no score.
        error: what went wrong, in words; None when ok.
        score: mean over exemplars of label + delta, on the label scale; None when not ok.
        score_std: population standard deviation over exemplars of label + delta; None when not ok.
        width: in pixels; None if it never became known.
        height: the same.
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
        layout: of arrays and tensors: "hwc", [H, W, 3], or "chw", [3, H, W]; None where their shape tells.
    """

    features: bool
    exemplar_scores: bool
    batch_size: int | None
    small_images: Literal["upscale", "error"]
    max_pixels: int
    layout: Layout | None


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
    settings = stage_settings(bundle, backend, **options)
    queries = queries_of(images, layout=options.get("layout"))
    return (scored_image(query) for query in Pipeline(backend, settings).run(queries))


def stage_settings(bundle: Bundle, backend: Backend, **options: Unpack[ScoreOptions]) -> StageSettings:
    """Return what `options` ask of the stages.

    Raises:
        TypeError: an option that there isn't.
        UsageError: an option's value is not allowed.
    """
    if unknown := options.keys() - ScoreOptions.__annotations__.keys():
        raise TypeError(f"no option {min(unknown)!r}: there are {', '.join(ScoreOptions.__annotations__)}")
    batch_size = options.get("batch_size")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size {batch_size}: must be at least 1")
    max_pixels, small_images = options.get("max_pixels", DEFAULT_MAX_PIXELS), options.get("small_images", "upscale")
    if max_pixels < 1:
        raise UsageError(f"max_pixels {max_pixels}: must be at least 1")
    if small_images not in ("upscale", "error"):
        raise UsageError(f"small_images {small_images!r}: choose upscale or error")
    if (layout := options.get("layout")) is not None and layout not in LAYOUTS:
        raise UsageError(f"layout {layout!r}: choose {' or '.join(LAYOUTS)}, or leave it out")
    sampling = bundle.info.sampling
    return StageSettings(
        sampling,
        DecodeOptions.for_sampling(sampling, max_pixels, small_images),
        batch_size or backend.batch_size,
        features=options.get("features", False),
        exemplar_scores=options.get("exemplar_scores", False),
    )


def is_single(images: object) -> bool:
    """Tell whether something is one image, rather than an iterable of images: files and buffers could be both."""
    return (
        isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)
        or (isinstance(images, np.ndarray) and images.ndim == 3)
        or (is_tensor(images) and dimensions(images) == 3)
        or is_file(images)
    )


def queries_of(images: Iterable[Any], *, layout: Layout | None = None, synchronize: bool = False) -> Generator[Query]:
    """Turn images into queries, one by one.

    Args:
        images: what `ImageLike` allows each; or one array or tensor of images.
        layout: of arrays and tensors; None where their shape tells.
        synchronize: whether images come from another thread than this one; see `tensor_as_array`.

    Raises:
        TypeError: something that is no image.
    """
    if is_tensor(images):
        if dimensions(images) != 4:
            shape = list(cast("Tensor", images).shape)
            raise TypeError(f"images is a tensor {shape}, not [B, H, W, 3] or [B, 3, H, W]")
        images = tensor_as_array(images, "images", synchronize=synchronize)
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
            yield Query(row, pixels=as_pixels(image, f"image {row}", layout))
        elif is_tensor(image):
            array = tensor_as_array(image, f"image {row}", synchronize=synchronize)
            yield Query(row, pixels=as_pixels(array, f"image {row}", layout))
        elif is_file(image):
            yield _from_file(row, image)
        else:
            raise TypeError(
                f"image {row} is a {type(image).__name__}, not a path, bytes, binary file, PIL image or "
                "uint8 [H, W, 3] array or tensor"
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


def scored_image(query: Query) -> ScoredImage:
    """Return what callers get of a scored query."""
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
