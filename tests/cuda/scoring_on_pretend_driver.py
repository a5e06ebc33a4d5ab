"""Checks of the whole path on a GPU, each run by test_scoring_on_pretend_driver.py in a process of its own.

python -m tests.cuda.scoring_on_pretend_driver CHECK FOLDER [PYCUDA]   (without it, cuda.bindings is used)

Real: PyCUDA, nvImageCodec (its decoders for the processor), the kernels' source (built by g++), ONNX Runtime's IO
binding, and every line of the path. Pretended: the driver. Device memory is host memory.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from pscr_engine import Scorer
from pscr_engine.backends import onnxruntime_cuda, registry
from pscr_engine.cuda import batch_size as measuring
from pscr_engine.cuda import stages as gpu_stages
from pscr_engine.cuda.decoder import Decoded, ImageDecoder
from pscr_engine.cuda.device import DeviceMemoryError
from pscr_engine.errors import BackendError
from pscr_engine.pipeline import Pipeline
from pscr_engine.records import Query
from pscr_engine.stages.base import StageSettings
from pscr_engine.stages.decode import DecodeOptions
from tests.helpers.images import encoded, pixels
from tests.helpers.tiny import P, make_bundle

from . import host_in_place_of_gpu, pretend_driver
from .commands import FAKE_TENSORRT


def troublesome() -> list[bytes]:
    whole = encoded(pixels(90, 70), "JPEG", quality=90)
    return [
        whole,
        encoded(pixels(64, 200, seed=1), "JPEG", quality=80, subsampling=0),
        encoded(pixels(50, 40, seed=2), "PNG"),
        b"",
        encoded(pixels(100, 33, seed=3), "JPEG", progressive=True),
        whole[: len(whole) // 2],
        whole[: len(whole) // 2] + b"\xff\xd9",
        encoded(pixels(45, 45, seed=4), "GIF"),
        encoded(pixels(45, 46, seed=5), "WEBP", quality=90),
        encoded(pixels(10, 20, seed=6), "JPEG"),
        encoded(pixels(1, 900, seed=7), "JPEG"),
        encoded(pixels(1, 30000, seed=7), "JPEG"),
        encoded(pixels(60, 60, seed=8), "JPEG", mode="L"),
        encoded(pixels(60, 61, seed=9), "JPEG", mode="CMYK"),
        encoded(pixels(1200, 1200, seed=10), "JPEG"),
        b"\xff\xd8 not a JPEG \xff\xd9",
        *(encoded(pixels(40 + seed, 60, seed), "JPEG") for seed in range(20)),
    ]


def the_same(on_gpu: list, on_host: list) -> None:
    assert [image.status for image in on_gpu] == [image.status for image in on_host]
    for mine, other in zip(on_gpu, on_host, strict=True):
        assert (mine.error, mine.width, mine.height) == (other.error, other.width, other.height)
        if other.ok:
            assert mine.score == pytest.approx(other.score, abs=1e-5)
            assert mine.score_std == pytest.approx(other.score_std, abs=1e-5)
            np.testing.assert_allclose(mine.features, other.features, atol=1e-5)
            np.testing.assert_allclose(mine.exemplar_scores, other.exemplar_scores, atol=1e-5)


def results(driver: ctypes.CDLL, folder: Path) -> None:
    """Compare statuses, errors, sizes, scores and features with the processor's, for all samplings and batch sizes."""
    images = troublesome()
    options: dict[str, Any] = {"features": True, "exemplar_scores": True, "max_pixels": 10**6}
    for sampling in ("ops", "nops", "rps", "none"):
        bundle = make_bundle(folder / f"{sampling}.pscr", sampling=sampling, exemplars=200).path
        on_host = Scorer.open(bundle, device="cpu").score(images, **options)
        assert sum(image.ok for image in on_host) == (30 if sampling == "none" else 31)
        scorer = Scorer.open(bundle, device="cuda:0")
        assert (scorer.backend.device, scorer.backend.precision) == ("cuda:0", "fp32")
        for batch_size in (1, 5, 16, 64):
            the_same(scorer.score(images, batch_size=batch_size, **options), on_host)
        assert scorer.score(images[0]).score == pytest.approx(on_host[0].score, abs=1e-5)
    gpu_stages._DECODED_BYTES = 20_000  # a few images at a time
    bundle = make_bundle(folder / "groups.pscr", exemplars=200).path
    the_same(
        Scorer.open(bundle, device="cuda").score(images, **options),
        Scorer.open(bundle, device="cpu").score(images, **options),
    )


def explained(driver: ctypes.CDLL, folder: Path) -> None:
    """Compare explanations with the processor's: scores of single patches, and the nearest exemplars."""
    for sampling in ("ops", "rps", "none"):
        bundle = make_bundle(folder / f"{sampling}.pscr", sampling=sampling).path
        with Scorer.open(bundle, device="cuda:0") as scorer:
            for image in (encoded(pixels(90, 70), "JPEG"), encoded(pixels(20, 40), "PNG"), pixels(50, 60)):
                mine, other = scorer.explain(image), Scorer.open(bundle, device="cpu").explain(image)
                assert (mine.device, other.device) == ("cuda:0", "cpu")
                assert mine.score == pytest.approx(other.score, abs=1e-5)
                for one, two in zip(mine.patches, other.patches, strict=True):
                    assert one.box == two.box
                    assert one.score == pytest.approx(two.score, abs=1e-5)
                assert [near.index for near in mine.nearest] == [near.index for near in other.nearest]


def undecodable(driver: ctypes.CDLL, folder: Path) -> None:
    """Score JPEGs whose headers are fine and that no decoder takes: alone, together, and among others."""
    whole = encoded(pixels(90, 70), "JPEG", quality=90)
    table = whole.index(b"\xff\xc0")
    broken = bytearray(whole)
    broken[table + 12] = 3  # a quantisation table that is not there
    bundle = make_bundle(folder / "m.pscr").path
    on_host, on_gpu = Scorer.open(bundle, device="cpu"), Scorer.open(bundle, device="cuda:0")
    for images in ([bytes(broken)], [bytes(broken)] * 40, [whole, bytes(broken)] * 20):
        for batch_size in (1, 4, 16):
            the_same(
                on_gpu.score(images, batch_size=batch_size, features=True, exemplar_scores=True),
                on_host.score(images, features=True, exemplar_scores=True),
            )
    assert on_gpu.score(bytes(broken)).status == "undecodable"
    driver.pretend_pool_keeps.restype = ctypes.c_uint64
    assert driver.pretend_pool_keeps() == 2 * 2**30


def memory(driver: ctypes.CDLL, folder: Path) -> None:
    """Check that buffers are allocated once, and that all are given back."""
    bundle = make_bundle(folder / "m.pscr").path
    scorer = Scorer.open(bundle, device="cuda:0")
    resident = driver.pretend_allocations()
    assert 0 < resident < 10
    image = encoded(pixels(50, 40), "JPEG")
    seen = set()
    for count, _ in enumerate(scorer.stream((image for _ in range(400)), batch_size=8)):
        if count > 50:
            seen.add(driver.pretend_allocations())
    assert len(seen) == 1, "allocated while it runs"
    assert scorer.score([image] * 20) == scorer.score([image] * 20)
    kept = driver.pretend_allocations()
    for _ in range(5):
        assert scorer.score([image] * 20)[19].ok
        assert scorer.score(image).ok
    assert driver.pretend_allocations() == kept, "allocated by each call"
    assert kept > resident
    scorer.close()
    assert driver.pretend_allocations() == 0


def many_threads(driver: ctypes.CDLL, folder: Path) -> None:
    """Score from 24 threads at once, with different options, and compare with one call on the processor."""
    bundle = make_bundle(folder / "m.pscr").path
    images = troublesome()
    options: dict[str, Any] = {"features": True, "exemplar_scores": True}
    expected = Scorer.open(bundle, device="cpu").score(images, **options)
    with Scorer.open(bundle, device="cuda:0") as scorer, ThreadPoolExecutor(24) as callers:

        def call(number: int) -> None:
            if number % 4 == 0:
                the_same(scorer.score(images[number:], batch_size=8, **options), expected[number:])
            elif number % 4 == 1:
                the_same(list(scorer.stream(images[:number], **options)), expected[:number])
            else:
                for image, other in zip(images[:number], expected[:number], strict=True):
                    mine = scorer.score(image)
                    assert mine.status == other.status
                    assert mine.score == (None if other.score is None else pytest.approx(other.score, abs=1e-5))

        list(callers.map(call, range(24)))
    assert driver.pretend_allocations() == 0


def settles(driver: ctypes.CDLL, allocations: int) -> None:
    """Wait until so many allocations are left: buffers of stages that failed are given back by their own thread."""
    end = monotonic() + 5
    while driver.pretend_allocations() != allocations and monotonic() < end:
        sleep(0.01)
    assert driver.pretend_allocations() == allocations


def out_of_memory(driver: ctypes.CDLL, folder: Path) -> None:
    """Check that a batch is halved once, with a warning; a second time, or without room for buffers, it is an error."""
    bundle = make_bundle(folder / "m.pscr").path
    images = troublesome()
    expected = Scorer.open(bundle, device="cpu").score(images, features=True, exemplar_scores=True)
    original = onnxruntime_cuda.OnnxRuntimeEngine.enqueue
    scorer = Scorer.open(bundle, device="cuda:0")
    room, resident = 8, driver.pretend_allocations()

    def enqueue(self, tensors, lane=0):
        if self.batch_size > room:
            raise DeviceMemoryError("pretended GPU is out of memory")
        original(self, tensors, lane)

    onnxruntime_cuda.OnnxRuntimeEngine.enqueue = enqueue
    before = driver.pretend_copies_on_device()
    the_same(scorer.score(images, batch_size=16, features=True, exemplar_scores=True), expected)
    assert driver.pretend_copies_on_device() > before
    room = 3
    # Without those that never reach the GPU: what is tried once more after an error would leave good stages open.
    decodable = [image for image, other in zip(images, expected, strict=True) if other.status == "ok"]
    with pytest.raises(DeviceMemoryError, match="out of memory"):
        scorer.score(decodable, batch_size=16)
    settles(driver, resident)  # before there is room again: a batch of nobody's under way would leave good stages open
    onnxruntime_cuda.OnnxRuntimeEngine.enqueue = original
    the_same(scorer.score(images, batch_size=16, features=True, exemplar_scores=True), expected)
    driver.pretend_limit(ctypes.c_long(100_000))
    with pytest.raises(DeviceMemoryError, match="use a smaller batch_size"):
        scorer.score(images, batch_size=64)
    settles(driver, resident)


def faults(driver: ctypes.CDLL, folder: Path) -> None:
    """Check that a fault in any stage ends the run with the fault itself, soon, and that no buffer is left."""
    bundle = make_bundle(folder / "m.pscr").path
    scorer = Scorer.open(bundle, device="cuda:0")
    data = [encoded(pixels(50, 40), "JPEG"), encoded(pixels(50, 40), "PNG")] * 60
    for stage in ("decode", "upload", "infer", "collect", "_decode_on_host", "_decode_on_device", "_score"):
        for after in (0, 1, 3):
            original, calls = getattr(gpu_stages.DeviceStages, stage), iter(range(10**6))

            def fault(*arguments, calls=calls, after=after, original=original):
                if next(calls) == after:
                    raise RuntimeError("injected")
                return original(*arguments)

            setattr(gpu_stages.DeviceStages, stage, fault)
            start = monotonic()
            with pytest.raises(RuntimeError, match="injected"):
                list(scorer.stream(data, batch_size=8))
            assert monotonic() - start < 5
            setattr(gpu_stages.DeviceStages, stage, original)
            # With other stages, so that the next fault meets new ones.
            assert all(image.ok for image in scorer.score(data[:20], batch_size=5))
    assert all(image.ok for image in scorer.score(data, batch_size=8))
    scorer.close()
    assert driver.pretend_allocations() == 0


def graphs(driver: ctypes.CDLL, folder: Path) -> None:
    """Check that TensorRT's work is recorded and then launched; where it can't be, it is enqueued each time."""
    sys.path.append(str(FAKE_TENSORRT))
    from pscr_engine.backends.tensorrt.compiling import CompileSettings, compile_on_gpu

    os.environ["XDG_CACHE_HOME"] = str(folder)
    bundle = make_bundle(folder / "m.pscr")
    images = troublesome() * 4
    expected = Scorer.open(bundle.path, device="cpu").score(images, features=True, exemplar_scores=True)
    for allowed in (True, False):
        if not allowed:
            os.environ["PRETEND_NO_GRAPHS"] = "1"
        compile_on_gpu(bundle, 0, CompileSettings("fp32", batch_size=16, force=True))
        scorer = Scorer.open(bundle.path, device="cuda:0", backend="tensorrt")
        resident, before = driver.pretend_allocations(), driver.pretend_graph_launches()
        for batch_size in (16, 4, 16):
            the_same(scorer.score(images, batch_size=batch_size, features=True, exemplar_scores=True), expected)
        assert (driver.pretend_graph_launches() > before) == allowed
        scorer.close()
        assert driver.pretend_allocations() < resident


def wrong_pixels(driver: ctypes.CDLL, folder: Path) -> None:
    """Check that a decoder's wrong pixels are found, reported and mended, and that it is given up if it goes on."""
    bundle = make_bundle(folder / "m.pscr").path
    images = [encoded(pixels(90, 70, seed), "JPEG") for seed in range(60)] * 5  # more than one micro-batch
    expected = Scorer.open(bundle, device="cpu").score(images, features=True, exemplar_scores=True)
    original, warnings = ImageDecoder.decode, []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger("pscr_engine").addHandler(handler)
    calls, faults, seen = 0, set(), []

    def decode(self, encoded_images, stream=0):
        nonlocal calls
        decoded = original(self, encoded_images, stream)
        for index, image in enumerate(decoded):
            if calls in faults:
                wrong = np.asarray(image.owner).copy()
                wrong[32:48, 16:32] = 0xCA  # a block that was never written
                decoded[index] = Decoded(wrong.ctypes.data, image.pitch, image.height, image.width, wrong)
            calls += 1
        seen.append(len(decoded))
        return decoded

    ImageDecoder.decode = decode
    for wrong, rate, mismatches in (
        ((0,), 0.001, 1),  # among the first images, all of which are compared
        ((3, 40), 0.001, 1),  # image 40 is not compared, so its pixels stay wrong
        ((3, 40), 1.0, 2),
        (range(300), 0.001, 3),
    ):
        calls, faults = 0, set(wrong)
        warnings.clear()
        seen.clear()
        scorer = Scorer.open(bundle, device="cuda:0")
        calls, resident = 0, driver.pretend_allocations()  # opening decodes, too
        pipeline = scorer_pipeline(scorer, rate)
        result = list(pipeline.run(Query(row, data=data) for row, data in enumerate(images)))
        assert len(warnings) == mismatches, warnings
        assert all("the GPU's decoder got it wrong" in line for line in warnings)
        counts = pipeline.stats.counts()
        assert counts["mismatch"][0] == mismatches
        missed = {40} if rate < 1 and 40 in faults and mismatches == 1 else set()
        for row, (mine, other) in enumerate(zip(result, expected, strict=True)):
            assert mine.ok
            near = mine.score == pytest.approx(other.score, abs=1e-5)
            assert near or row in missed, row
        given_up = "is not used any more in this run" in warnings[-1]
        assert given_up == (mismatches == 3)
        if given_up:
            assert sum(seen) < len(images), "the decoder went on"
        assert driver.pretend_allocations() == resident
        scorer.close()
    ImageDecoder.decode = original


def scorer_pipeline(scorer: Scorer, rate: float) -> Pipeline:
    sampling = scorer.bundle.info.sampling
    decoding = DecodeOptions.for_sampling(sampling, 10**8, "upscale")
    return Pipeline(scorer.backend, StageSettings(sampling, decoding, 8, verify_decoding=rate))


def batch_size(driver: ctypes.CDLL, folder: Path) -> None:
    """Check that the batch size is measured, remembered for this host and bundle, and no larger than memory allows."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    bundle = make_bundle(folder / "m.pscr")
    backend = registry.create_backend(bundle, device="cuda:0", tune=True, throughput=True)
    resident = driver.pretend_allocations()
    assert backend.batch_size in measuring.CANDIDATES
    (file,) = (folder / "pscr-engine").glob("batch-size-*.json")
    content = json.loads(file.read_text())
    assert content["batch_size"] == backend.batch_size
    rates = {int(size): rate for size, rate in content["images_per_second"].items()}
    assert measuring.knee(rates) == backend.batch_size
    file.write_text('{"batch_size": 48}')
    assert registry.create_backend(bundle, device="cuda:0", tune=True, throughput=True).batch_size == 48
    assert registry.create_backend(bundle, device="cuda:0", tune=True, throughput=True, batch_size=5).batch_size == 5
    for unusable in ("", "[]", '{"batch_size": "48"}', '{"batch_size": 0}'):
        file.write_text(unusable)
        assert (
            registry.create_backend(bundle, device="cuda:0", tune=True, throughput=True).batch_size
            in measuring.CANDIDATES
        )
    file.unlink()
    driver.pretend_limit(ctypes.c_long(40 * 9 * P * P * 3))  # the patches of 32 images, and not of 64
    small = registry.create_backend(bundle, device="cuda:0", tune=True, throughput=True)
    assert small.batch_size in (16, 32)
    before = driver.pretend_allocations()
    small.close()
    assert driver.pretend_allocations() == before - 2
    assert resident == 2, "what was measured with is given back"


def refusals(driver: ctypes.CDLL, folder: Path) -> None:
    """Check that an onnxruntime without CUDA is refused in one line."""
    bundle = make_bundle(folder / "m.pscr")
    with pytest.raises(BackendError, match=r"installed onnxruntime is the one for CPUs: .*\[gpu\]"):
        provider = onnxruntime_cuda.Provider("CUDAExecutionProvider", "cuda")
        onnxruntime_cuda.Provider.__new__.__defaults__ = tuple(provider)
        registry.create_backend(bundle, device="cuda:0")


if __name__ == "__main__":
    check, folder = sys.argv[1], Path(sys.argv[2])
    pycuda = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    if pycuda is not None:
        sys.path.append(str(pycuda))
    assert P == 32
    driver = pretend_driver.install(pycuda, folder)
    host_in_place_of_gpu.install()
    globals()[check](driver, folder)
    print("passed", check)
