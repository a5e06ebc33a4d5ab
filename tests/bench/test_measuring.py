"""The parts of a measurement, by themselves."""

import io
import subprocess
import sysconfig
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pscr_engine.backends import create_backend
from pscr_engine.bench import ceilings, energy, stages
from pscr_engine.bench.images import BenchImages, encode, made_up
from pscr_engine.bench.latency import latency
from pscr_engine.bench.rate import Rate, measure
from pscr_engine.bench.whole_runs import WholeRuns
from pscr_engine.bench.work_per_image import work_of
from pscr_engine.config import ScoreConfig
from pscr_engine.errors import PscrError, UsageError

from ..helpers.images import encoded, pixels
from ..helpers.tiny import C, P


def test_a_rate_counts_what_the_work_says_it_did():
    calls = count()

    def work():
        return next(calls) and 7  # the first call is the warm-up

    rate = measure(work, 0.01, 3)
    assert 0 < rate.low <= rate.median <= rate.high
    assert measure(lambda: 5, 0, 1).median > 0, "at least one turn, however little time there is"
    assert Rate.of([3.0, 1.0, 2.0]) == Rate(1.0, 2.0, 3.0)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 3))
def test_made_up_images_have_the_size_asked_for_and_are_the_same_each_time(width, height, seed):
    image = made_up(width, height, seed)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, made_up(width, height, seed))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_made_up_files_are_of_their_format_and_about_as_large_as_photographs(tmp_path, kind):
    images = BenchImages.make(tmp_path, (256, 192), kind, 90)
    with Image.open(images.paths[0]) as image:
        assert image.format.lower() == kind
        assert image.size == (256, 192)
    assert len({*images.encoded()}) == len(images.paths), "all different"
    assert images.facts["bytes_per_image"] == pytest.approx(np.mean([*map(len, images.encoded())]), abs=1)
    if kind == "jpeg":  # 0.1 to 0.5 bytes per pixel is usual at this quality
        assert 0.1 < images.facts["bytes_per_image"] / (256 * 192) < 0.6


def test_a_folder_of_images(tmp_path):
    for index in range(300):
        (tmp_path / f"{index:03d}.png").write_bytes(encoded(pixels(3, 3)))
    (tmp_path / "notes.txt").write_text("no image")
    images = BenchImages.of_folder(tmp_path)
    assert len(images.paths) == 256
    assert images.paths[0].endswith("000.png")
    assert images.paths[-1].endswith("299.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image files in it"):
        BenchImages.of_folder(tmp_path / "empty")
    with pytest.raises(UsageError, match="name a folder of images"):
        BenchImages.of_folder(tmp_path / "nowhere")


def test_work_is_counted_from_the_graph(tiny):
    work = work_of(tiny, "fp32")
    M = tiny.exemplars.count
    # The trunk's product for nine patches, the query's half of the head, the product with each exemplar's hidden terms.
    assert work.multiply_adds == 9 * 3 * C + C * C + M * C
    pixels_read = 9 * P * P * 3
    assert work.bytes_moved > pixels_read * (1 + 4 + 4), "read as bytes, written and read as floats"
    assert sum(work.operators.values()) == pytest.approx(1, abs=0.2)
    assert "MatMul" in work.operators


@pytest.mark.slow
def test_work_of_a_network_is_what_pytorch_counts(reference_bundle):
    import torch
    from pscr_export.backbones import BACKBONES
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        BACKBONES["resnet18"].build().eval()(torch.zeros(1, 3, 224, 224))
    trunk = 9 * counter.get_total_flops() / 2
    assert work_of(reference_bundle("resnet18"), "fp32").multiply_adds == pytest.approx(trunk, rel=1e-3)


@pytest.mark.medium
def test_ceilings_are_those_of_a_processor(monkeypatch):
    assert 1 < ceilings.memory_bandwidth() < 10_000
    monkeypatch.setenv("PATH", "")  # no compiler
    ceilings.instruction_peak.cache_clear()
    try:
        assert ceilings.arithmetic_peak("int8") is None
        found = ceilings.arithmetic_peak("fp32")
        assert found is not None
        peak, how = found
        assert 1 < peak < 1e6
        assert "NumPy" in how
    finally:
        ceilings.instruction_peak.cache_clear()


def test_the_peak_of_the_instructions_is_above_what_a_product_reaches():
    found = ceilings.instruction_peak()
    assert found["fp32"] > 0.5 * ceilings._matrix_product(512)


def test_cublas_takes_what_it_is_given(tmp_path):
    """Compare constants and the order of arguments with NVIDIA's own header."""
    from pscr_engine.cuda import ceilings as on_device

    includes = [*Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/include/cublas_v2.h")]
    if not includes:
        pytest.skip("no cuBLAS headers: they come with PyTorch for CUDA")
    source = tmp_path / "check.cpp"
    source.write_text(
        f"""#include <cublas_v2.h>
static_assert(CUDA_R_32F == {on_device.CUDA_R_32F} && CUDA_R_16F == {on_device.CUDA_R_16F}
    && CUBLAS_COMPUTE_32F == {on_device.CUBLAS_COMPUTE_32F} && CUBLAS_OP_N == {on_device.CUBLAS_OP_N}
    && CUBLAS_GEMM_DEFAULT == {on_device.CUBLAS_GEMM_DEFAULT});
cublasStatus_t (*product)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void *,
    const void *, cudaDataType, int, const void *, cudaDataType, int, const void *, void *, cudaDataType, int,
    cublasComputeType_t, cublasGemmAlgo_t) = cublasGemmEx;
cublasStatus_t (*create)(cublasHandle_t *) = cublasCreate_v2;
cublasStatus_t (*stream)(cublasHandle_t, cudaStream_t) = cublasSetStream_v2;
"""
    )
    command = ["g++", "-std=c++17", f"-I{includes[0].parent}", "-I/usr/local/cuda/include", "-fsyntax-only", source]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_energy_of_processor_packages(tmp_path, monkeypatch):
    for zone, start in (("intel-rapl:0", 900), ("intel-rapl:1", 50), ("intel-rapl:0:0", 1)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{start}000000000\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("1000000000000\n")
    found = energy.meter(["cpu"], tmp_path)
    assert found is not None
    joules, whose = found
    assert "RAPL" in whose
    assert joules() == 0
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100000000000\n")  # once around
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("80000000000\n")
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("900000000000\n")  # a part of a package: counted in it
    assert joules() == pytest.approx((200 + 30) * 1e3)
    now = time.monotonic()
    monkeypatch.setattr(energy, "monotonic", lambda: now + 1001)
    assert joules() is None, "the counter may have started again more than once"


def test_no_energy_where_nobody_tells(tmp_path):
    assert energy.meter(["cpu"], tmp_path) is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert energy.meter(["cpu"], tmp_path) is None, "a zone that can't be read"


def test_each_stage_alone(tiny, tmp_path):
    files = []
    for index in range(4):
        files.append(tmp_path / f"{index}.png")
        files[-1].write_bytes(encoded(pixels(40, 50, index)))
    paths = [*map(str, files)]
    data, images = [file.read_bytes() for file in files], [pixels(40, 50, 0)]
    backend = create_backend(tiny, device="cpu", throughput=True)
    for rate in (
        stages.fetching(paths, 0.01, 2),
        stages.decoding(data, 0.01, 2),
        stages.sampling(tiny, images, 0.01, 2),
        stages.inferring(tiny, backend, images, 3, 0.01, 2),
        stages.sinking(tmp_path, 0.01, 2),
    ):
        assert 0 < rate.low <= rate.median <= rate.high
    assert stages.plain_loop(tiny, backend, paths) == 4
    by_format = stages.decoding_by_format(images, 0.01, 1)
    assert by_format["png"]["bytes_per_image"] == len(encode(images[0], "png", 90))
    assert [*tmp_path.glob("tmp*")] == [], "parts were left behind"


def test_failures_have_no_speed(tiny, tmp_path):
    gone, broken = str(tmp_path / "gone.png"), b"no image"
    backend = create_backend(tiny, device="cpu")
    for measured in (
        lambda: stages.fetching([gone], 0, 1),
        lambda: stages.decoding([broken], 0, 1),
        lambda: stages.plain_loop(tiny, backend, [gone]),
        lambda: latency(tiny, backend, 1, [broken], 0),
    ):
        with pytest.raises(PscrError, match="bench needs images that can be scored"):
            measured()
    (tmp_path / "good.png").write_bytes(encoded(pixels(40, 50)))
    config = ScoreConfig("", bundle=str(tiny.path))
    runs = WholeRuns(config, [str(tmp_path / "good.png"), gone], tmp_path, 0.01, 1)
    with pytest.raises(PscrError, match=f"32 missing of the 64 rows .*: {gone}: no such file: {gone}"):
        runs.on(["cpu"])


def test_latency_has_its_percentiles_in_order(tiny):
    buffer = io.BytesIO()
    Image.fromarray(pixels(40, 50)).save(buffer, "JPEG")
    found = latency(tiny, create_backend(tiny, device="cpu"), 2, [buffer.getvalue()], 0.05)
    assert [*found] == ["p50", "p90", "p95", "p99"]
    assert 0 < found["p50"] <= found["p90"] <= found["p95"] <= found["p99"]
