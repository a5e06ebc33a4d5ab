"""The computation of an explanation: it scores an image and each of its patches, and finds near exemplars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from ..backends.base import Backend
from ..bundle import Bundle
from ..errors import ImageError, UsageError
from ..records import Pixels
from ..sampling import Sampling, TooSmallError
from ..scoring import ImageLike, ScoredImage, queries_of
from ..stages.arrays import Layout
from ..stages.decode import DecodeOptions
from ..stages.load import load_image
from ..stages.pillow import pillow_for_a_run
from .explanation import Explanation
from .findings import NearExemplar, PatchScore


def explain(
    bundle: Bundle,
    backend: Backend,
    image: ImageLike,
    *,
    score: Callable[..., list[ScoredImage]],
    nearest: int,
    small_images: Literal["upscale", "error"],
    max_pixels: int,
    layout: Layout | None = None,
) -> Explanation:
    """Score an image and each of its patches, and find the exemplars nearest to it: what `Scorer.explain` does.

    Args:
        bundle: the opened bundle.
        backend: what scores with it.
        image: as for `Scorer.score`.
        score: `Scorer.score`, given a list of images and options.
        nearest: see `Scorer.explain`, as the following.
        small_images: what happens to an image with a side below the patch size.
        max_pixels: images with more pixels are refused.
        layout: of an array or a tensor.

    Raises:
        ImageError: the image can't be scored.
        StoreError: its object store is out of reach.
        TypeError: `image` is something else.
        UsageError: `nearest` is negative.
    """
    if nearest < 0:
        raise UsageError(f"nearest {nearest}: must be 0 or more")
    query = next(queries_of([image], layout=layout))
    name, sampling = query.path or "image", bundle.info.sampling
    content = load_image(query, DecodeOptions.for_sampling(sampling, max_pixels, small_images))
    if query.pixels is None:
        raise ImageError(f"{name} can't be scored: {query.error}")
    try:
        height, width = query.pixels.shape[:2]
        boxes = sampling.boxes(height, width, query.digest, max_pixels)
    except TooSmallError as error:
        raise ImageError(f"{name} can't be scored: {error}") from error
    with pillow_for_a_run():
        whole, *parts = score(
            [query.pixels if content is None else content, *_patches(query.pixels, sampling, query.digest)],
            features=True,
            exemplar_scores=True,
            max_pixels=max(max_pixels, sampling.patch_size**2),
            layout="hwc",
        )
    mean, spread = _scores(whole, name)
    patches = [
        PatchScore(box, *_scores(part, f"{name}, patch {number},"))
        for number, (box, part) in enumerate(zip(boxes, parts or [whole], strict=True), 1)
    ]
    near, median = _nearest(bundle, whole, nearest)
    return Explanation(
        name=name,
        pixels=query.pixels,
        score=mean,
        score_std=spread,
        patches=tuple(patches),
        nearest=near,
        median_distance=median,
        bundle=bundle,
        precision=backend.precision,
        device=backend.device,
    )


def _patches(pixels: Pixels, sampling: Sampling, digest: bytes) -> Pixels:
    """Cut out the patches, uint8 [D, P, P, 3], to be scored as images; none if D is 1: it has the image's own score.

    All D patches of an image of P×P pixels are that image, and the mean of D equal features is that feature:
    scored as an image, a patch gets the head's answer for its own feature, by any backend and any graph.
    Only the sampling "none", with its single patch, would resize it first.
    """
    D, P = sampling.patches, sampling.patch_size
    if D == 1:
        return np.empty((0, P, P, 3), np.uint8)
    patches = np.empty((D, P, P, 3), np.uint8)
    sampling.sample(pixels, patches, digest=digest)
    return patches


def _scores(image: ScoredImage, name: str) -> tuple[float, float]:
    if image.score is None or image.score_std is None:
        raise ImageError(f"{name} can't be scored: {image.error}")
    return image.score, image.score_std


def _nearest(bundle: Bundle, image: ScoredImage, count: int) -> tuple[tuple[NearExemplar, ...], float]:
    """Find the `count` exemplars whose features are nearest to the image's, and the median distance of all."""
    cache, files = bundle.exemplars, bundle.exemplar_files()
    assert image.exemplar_scores is not None
    assert image.features is not None
    distances = np.linalg.norm(cache.features - image.features, axis=1)
    deltas = image.exemplar_scores - cache.labels
    near = []
    for m in np.argsort(distances, kind="stable")[:count].tolist():
        path, sha256 = files[m]
        near.append(NearExemplar(m, path, sha256, float(cache.labels[m]), float(distances[m]), float(deltas[m])))
    return tuple(near), float(np.median(distances))
