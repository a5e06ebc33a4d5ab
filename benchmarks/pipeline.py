"""What the pipeline costs: against the bare session, a plain loop, and the decoder alone.

python -m benchmarks.pipeline
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from unittest import mock

import numpy as np

from pscr_engine.backends import Backend, BatchScores, create_backend
from pscr_engine.bundle import Bundle
from pscr_engine.config import ScoreConfig
from pscr_engine.host import usable_cpus
from pscr_engine.records import MicroBatch, Pixels, Query
from pscr_engine.runners.local import run
from pscr_engine.stages.decode import DecodeOptions, decode
from pscr_engine.stages.fetch import fetch
from pscr_engine.stages.infer import infer
from pscr_engine.stages.sample import Sampler

from .common import CACHE, random_patches, record, spread, untrained_bundle

ROUNDS = 4
INFER_IMAGES = 48
DECODE_IMAGES = 2000
METHOD = (
    "512×512 JPEG (quality 92, made-up scenes) on disk, in the page cache. Within a round each way runs once over all "
    "images, in turn; images/s, and ratios pair by pair within a round. resnet18, FP32, OPS, ten exemplars, batch 1. "
    "'session': ONNX Runtime fed ready patches. 'loop': fetch, decode, sample, infer, one image after another. "
    "'score': the whole run, manifest to Parquet with fsync. With a stand-in backend that answers at once: 'decoder', "
    "decoding of bytes in memory in as many threads as the run uses; 'score', the whole run."
)


class NoBackend:
    """Answers at once: what is left is everything but inference."""

    name, device, precision, batch_size = "none", "cpu", "fp32", 1

    def score(self, patches: Pixels, *, features: bool = False) -> BatchScores:
        zeros = np.zeros(1, np.float32)
        return BatchScores(zeros, zeros[:, None], None)


def images() -> list[Path]:
    folder = CACHE / "images"
    if not folder.exists():
        from pscr_training.synthetic import generate

        folder.mkdir(parents=True)
        for index, made in enumerate(generate(64, seed=7)):
            made.image.save(folder / f"{index:03d}.jpg", quality=92)
    return sorted(folder.glob("*.jpg"))


def whole_run(bundle: Bundle, backend: Backend, count: int) -> None:
    paths = images()
    manifest, out = CACHE / f"manifest-{count}.csv", CACHE / "scores"
    manifest.write_text("path\n" + "".join(f"{paths[row % len(paths)]}\n" for row in range(count)))
    shutil.rmtree(out, ignore_errors=True)
    with mock.patch("pscr_engine.runners.local.create_backend", return_value=backend):
        result = run(ScoreConfig(str(manifest), bundle=bundle.path, out=out))
    assert result.status == {"ok": count}


def bare_session(bundle: Bundle, backend: Backend, count: int) -> None:
    patches = random_patches(bundle, 1)
    for _ in range(count):
        backend.score(patches)


def plain_loop(bundle: Bundle, backend: Backend, count: int) -> None:
    paths, sampler = images(), Sampler(bundle.info.sampling, 1, 10**9)
    for row in range(count):
        query = Query(row, location=str(paths[row % len(paths)]))
        batch, buffer = MicroBatch([query]), sampler.begin()
        fetch(query)
        decode(query, DecodeOptions())
        sampler.sample(query, batch, buffer)
        sampler.finish(batch, buffer)
        assert batch.patches is not None
        infer(backend, [query], batch.patches)
        sampler.release(batch)


def decoder(count: int) -> None:
    data = [path.read_bytes() for path in images()]

    def one(row: int) -> None:
        query = Query(row, data=data[row % len(data)])
        decode(query, DecodeOptions())
        assert query.ok

    with ThreadPoolExecutor(usable_cpus()) as pool:
        list(pool.map(one, range(count)))


def rates(ways: dict[str, Callable[[], None]], count: int, rounds: int) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = perf_counter()
            way()
            if number:  # the first round warms up
                out[name].append(count / (perf_counter() - start))
    return out


def compared(measured: dict[str, list[float]], base: str) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {
            "images_per_second": spread(values),
            f"share_of_{base}": spread([mine / other for mine, other in zip(values, measured[base], strict=True)]),
        }
        for name, values in measured.items()
    }


def main() -> None:
    bundle = untrained_bundle("resnet18")
    real, none = create_backend(bundle), NoBackend()
    inference = rates(
        {
            "session": lambda: bare_session(bundle, real, INFER_IMAGES),
            "loop": lambda: plain_loop(bundle, real, INFER_IMAGES),
            "score": lambda: whole_run(bundle, real, INFER_IMAGES),
        },
        INFER_IMAGES,
        ROUNDS,
    )
    decoding = rates(
        {"decoder": lambda: decoder(DECODE_IMAGES), "score": lambda: whole_run(bundle, none, DECODE_IMAGES)},
        DECODE_IMAGES,
        ROUNDS,
    )
    figures = {"resnet18": compared(inference, "session"), "no backend": compared(decoding, "decoder")}
    for name, ways in figures.items():
        for way, values in ways.items():
            print(f"{name:<12} {way:<8} {values}")
    print(record("pipeline-cpu", METHOD, figures))


if __name__ == "__main__":
    main()
