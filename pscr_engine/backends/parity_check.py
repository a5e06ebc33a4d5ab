"""Check that a backend scores as ONNX Runtime does in FP32 on the processor, on given images or on made-up ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, Parity
from ..bundle.parity import compare
from ..errors import BackendError, ParityError
from ..records import MicroBatch, Pixels, Query
from ..stages.base import StageSettings, run_through
from ..stages.decode import DEFAULT_MAX_PIXELS, DecodeOptions
from ..stages.load import load_image
from .base import Backend

MADE_UP_IMAGES, _MADE_UP_SIDE = 48, 512


def require_passed(parity: Parity, what: str, consequence: str) -> None:
    """Raise ParityError, with the figures, if a backend has failed its check.

    Args:
        parity: the check's result.
        what: names what was checked, as in "the plan for NVIDIA H100".
        consequence: what happens now.
    """
    if not parity.passed:
        srcc = "" if parity.srcc is None else f", SRCC {parity.srcc:.5f}"
        raise ParityError(
            f"{what} is refused: on {parity.images} images its scores differ from ONNX Runtime's "
            f"in FP32 by up to {parity.max_abs_diff:.2e} (allowed {parity.tolerance:.2e}){srcc}; {consequence}"
        )


def check_parity(
    bundle: Bundle, backend: Backend, images: Sequence[str] = (), *, made_up: int = MADE_UP_IMAGES
) -> Parity:
    """Compare a backend's scores with those of ONNX Runtime on the processor, in FP32.

    Args:
        bundle: what both run; must have an FP32 graph.
        backend: the backend to check.
        images: files; without any, made-up ones (a bundle holds its exemplars' features, not their pixels).
        made_up: how many made-up ones.

    Raises:
        BundleError: the bundle has no FP32 graph.
        BackendError: some of the images can't be scored.
    """
    from .onnxruntime import OnnxRuntimeBackend

    reference = OnnxRuntimeBackend(bundle.graph_path("fp32"), bundle.exemplars)
    # Decoded once, on the host: it is the engine that is checked, not how a decoder rounds.
    pixels = [_pixels(image) for image in images] if images else made_up_images(made_up)
    parity = compare(
        backend.precision, _scores(bundle, reference, pixels), _scores(bundle, backend, pixels), bundle.info.label_range
    )
    if images:
        return parity
    # Scores of made-up images lie close together: their order says nothing.
    return Parity(parity.images, parity.max_abs_diff, parity.mean_abs_diff, parity.srcc, parity.tolerance, None)


def _pixels(file: str) -> Pixels:
    query = Query(0, path=file, location=file)
    load_image(query, DecodeOptions())
    if query.pixels is None:
        raise BackendError(f"{file}: can't be used for the check: {query.error}")
    return query.pixels


def _scores(bundle: Bundle, backend: Backend, images: Sequence[Pixels]) -> NDArray[np.float32]:
    sampling = bundle.info.sampling
    decoding = DecodeOptions.for_sampling(sampling, DEFAULT_MAX_PIXELS, "upscale")
    settings = StageSettings(sampling, decoding, backend.batch_size)
    queries = [Query(row, pixels=image) for row, image in enumerate(images)]
    with closing(backend.stages(settings)) as chain:
        for start in range(0, len(queries), settings.rows):
            run_through(chain, MicroBatch(queries[start : start + settings.rows]))
    for query in queries:
        if not query.ok:
            raise BackendError(f"an image can't be used for the check: {query.error}")
    return np.array([query.score for query in queries], np.float32)


def made_up_images(count: int = MADE_UP_IMAGES) -> list[Pixels]:
    """Generate `count` seeded images from smooth to noisy, uint8 [512, 512, 3]."""
    out = []
    for seed in range(count):
        dice = np.random.default_rng(seed)
        cells = 2 ** (2 + seed % 6)
        coarse = dice.integers(0, 256, (cells, cells, 3)).astype(np.float32)
        image = np.kron(coarse, np.ones((_MADE_UP_SIDE // cells, _MADE_UP_SIDE // cells, 1), np.float32))
        image += dice.normal(0, 4 * (seed % 5), image.shape).astype(np.float32)
        out.append(image.clip(0, 255).astype(np.uint8))
    return out
