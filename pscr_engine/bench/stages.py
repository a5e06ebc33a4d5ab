"""Measure each stage by itself, with nothing else running, in images per second."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, repeat
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..backends.base import Backend
from ..backends.devices import is_gpu
from ..bundle import Bundle
from ..host import usable_cpus
from ..output.parts import Parts
from ..pipeline import FETCH_THREADS
from ..records import MicroBatch, Pixels, Query
from ..stages.decode import DecodeOptions, decode
from ..stages.fetch import read_file
from ..stages.infer import PatchScorer, infer
from ..stages.sample import Sampler
from ..stages.sink import output_schema, to_table
from .images import FORMATS, encode, require_ok
from .rate import Rate, measure

_PART_ROWS = 1024
_QUALITY = 90


def fetching(paths: Sequence[str], seconds: float, rounds: int) -> Rate:
    """Measure reading of files, in as many threads as a run has for it; the page cache serves files read before."""

    def one(path: str) -> None:
        query = Query(0, path=path, location=path)
        read_file(query)
        require_ok([query])

    return _in_threads(one, paths, FETCH_THREADS, seconds, rounds)


def decoding(data: Sequence[bytes], seconds: float, rounds: int) -> Rate:
    """Measure decoding of encoded images to RGB, on all usable cores."""

    def one(each: bytes) -> None:
        query = Query(0, path="an image", data=each)
        decode(query, DecodeOptions())
        require_ok([query])

    return _in_threads(one, data, usable_cpus(), seconds, rounds)


def decoding_by_format(images: Sequence[Pixels], seconds: float, rounds: int) -> dict[str, dict[str, Any]]:
    """Measure `decoding` of the same images in each format, and their mean size in bytes."""
    out = {}
    for kind in FORMATS:
        data = [encode(image, kind, _QUALITY) for image in images]
        rate = decoding(data, seconds, rounds)
        out[kind] = {"images_per_second": rate.as_json(), "bytes_per_image": round(np.mean([*map(len, data)]))}
    return out


def sampling(bundle: Bundle, images: Sequence[Pixels], seconds: float, rounds: int) -> Rate:
    """Measure sampling of patches from decoded images, on all usable cores."""
    sampled = bundle.info.sampling

    def one(image: Pixels) -> None:
        sampled.sample(image, np.empty((sampled.patches, sampled.patch_size, sampled.patch_size, 3), np.uint8))

    return _in_threads(one, images, usable_cpus(), seconds, rounds)


def inferring(
    bundle: Bundle, backend: Backend, images: Sequence[Pixels], batch_size: int, seconds: float, rounds: int
) -> Rate:
    """Measure scoring of patches, batch after batch, in as many threads as the backend wants."""
    if is_gpu(backend.device):
        from .on_gpu import engine_alone

        return engine_alone(backend, batch_size, rounds)
    scorer, sampling = cast("PatchScorer", backend), bundle.info.sampling
    patches = np.empty((batch_size, sampling.patches, sampling.patch_size, sampling.patch_size, 3), np.uint8)
    for out, image in zip(patches, cycle(images), strict=False):
        sampling.sample(image, out)
    batch = patches.reshape(-1, *patches.shape[2:])
    batches = 2 * scorer.runs  # so that no thread waits long for the others at the end of a turn
    with ThreadPoolExecutor(scorer.runs) as pool:

        def work() -> int:
            for _ in pool.map(scorer.score, repeat(batch, batches)):
                pass
            return batches * batch_size

        return measure(work, seconds, rounds)


def sinking(folder: Path, seconds: float, rounds: int) -> Rate:
    """Measure writing of scored queries to durable parts of 1,024 rows, in `folder`."""
    schema, rng = output_schema(None, None), np.random.default_rng(0)
    queries = [
        Query(row, path=f"images/{row:09d}.jpg", score=float(value), score_std=0.5, width=512, height=512)
        for row, value in enumerate(rng.normal(3, 1, _PART_ROWS))
    ]
    with tempfile.TemporaryDirectory(dir=folder) as where:
        parts, numbers = Parts(Path(where)), cycle(range(16))

        def work() -> int:
            parts.write(next(numbers), to_table(queries, schema))
            return _PART_ROWS

        return measure(work, seconds, rounds)


def plain_loop(bundle: Bundle, backend: PatchScorer, paths: Sequence[str]) -> int:
    """Fetch, decode, sample and score one image after another, as a simple script would do it.

    Returns:
        The number of images.

    Raises:
        PscrError: one of them can't be scored.
    """
    sampler = Sampler(bundle.info.sampling, 1, 10**9)
    for row, path in enumerate(paths):
        query = Query(row, path=path, location=path)
        batch, buffer = MicroBatch([query]), sampler.begin()
        read_file(query)
        decode(query, DecodeOptions())
        require_ok([query])
        sampler.sample(query, batch, buffer)
        sampler.finish(batch, buffer)
        if batch.patches is not None:
            infer(backend, [query], batch.patches)
        sampler.release(batch)
        require_ok([query])
    return len(paths)


def _in_threads(one: Callable[[Any], None], items: Sequence[Any], threads: int, seconds: float, rounds: int) -> Rate:
    with ThreadPoolExecutor(threads) as pool:

        def work() -> int:
            for _ in pool.map(one, items):
                pass
            return len(items)

        return measure(work, seconds, rounds)
