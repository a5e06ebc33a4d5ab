import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pscr_engine import Scorer, host
from pscr_engine.backends import precision as precisions
from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.backends.precision import choose_precision
from pscr_engine.backends.registry import create_backend
from pscr_engine.bundle import Bundle, Graph, Parity
from pscr_engine.config import ScoreConfig
from pscr_engine.errors import UsageError

from ..helpers.images import encoded, pixels


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pscr-engine" / "graphs"


def patches_for(bundle: Bundle, images: int) -> np.ndarray:
    shape = (images * bundle.info.sampling.patches, bundle.info.patch_size, bundle.info.patch_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def scores(bundle, patches):
    backend: Any = create_backend(bundle, device="cpu")
    return backend.score(patches)


def test_the_optimised_graph_is_kept_and_gives_the_same_bits(tiny, cache):
    patches = patches_for(tiny, 3)
    plain = OnnxRuntimeBackend(tiny.graph_path("fp32"), tiny.exemplars).score(patches)
    assert not cache.exists()
    first = scores(tiny, patches)
    (kept,) = cache.iterdir()
    again = scores(tiny, patches)
    for answer in (first, again):
        assert np.array_equal(answer.exemplar_scores, plain.exemplar_scores)
    assert list(cache.iterdir()) == [kept]


def test_it_is_the_kept_graph_that_runs(tiny, cache, tmp_path):
    create_backend(tiny, device="cpu")
    for graph in tiny.path.glob("*.onnx"):
        graph.write_bytes(b"no graph at all")
    scores(tiny, patches_for(tiny, 1))


@pytest.mark.parametrize("damage", [b"", b"no graph at all"])
def test_a_damaged_cache_is_made_again(tiny, cache, damage):
    create_backend(tiny, device="cpu")
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    scores(tiny, patches_for(tiny, 1))
    assert kept.read_bytes() == whole


def test_a_cache_that_cant_be_written_stops_nothing(tiny, cache):
    cache.parent.parent.mkdir()
    cache.parent.write_bytes(b"a file where a folder should be")
    scores(tiny, patches_for(tiny, 1))


def test_other_bundles_get_other_places_and_old_ones_are_forgotten(tiny, cache, tmp_path, monkeypatch):
    from pscr_engine.backends import graph_cache

    monkeypatch.setattr(graph_cache, "_KEPT", 2)
    for name in "abc":
        shutil.copytree(tiny.path, tmp_path / name)
        raw = (tmp_path / name / "bundle.json").read_text()
        (tmp_path / name / "bundle.json").write_text(raw + " " * ord(name))
        create_backend(Bundle.open(tmp_path / name), device="cpu")
    assert len(list(cache.iterdir())) == 2


def test_several_runs_at_once_share_a_session_and_agree(tiny):
    backend = OnnxRuntimeBackend(tiny.graph_path("fp32"), tiny.exemplars, precision="int8", threads=4, throughput=True)
    assert backend.runs == 4
    patches = patches_for(tiny, 40)
    D = tiny.info.sampling.patches
    with ThreadPoolExecutor(backend.runs) as pool:
        apart = list(pool.map(lambda i: backend.score(patches[i * D : i * D + D]).score[0], range(40)))
    assert np.allclose(apart, backend.score(patches).score, atol=1e-6)


def test_cores_are_given_to_one_run_or_to_many(tiny):
    def runs(precision: str, threads: int, *, throughput: bool = True) -> int:
        graph = tiny.graph_path("fp32")
        return OnnxRuntimeBackend(
            graph, tiny.exemplars, precision=precision, threads=threads, throughput=throughput
        ).runs

    assert runs("int8", 2) == 2
    assert runs("int8", 2, throughput=False) == 1
    assert runs("fp32", 2) == 1
    assert runs("fp32", 8) == 8


def test_rows_keep_their_order_with_several_runs(tiny, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    images = [pixels(40 + index % 7, 50, seed=index) for index in range(100)]
    for index, image in enumerate(images):
        (tmp_path / f"{index:03d}.png").write_bytes(encoded(image))
    monkeypatch.setattr("pscr_engine.backends.onnxruntime._CORES_PER_RUN", 0)
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{index:03d}.png\n" for index in range(100)))
    Scorer.score_manifest(
        ScoreConfig(str(tmp_path / "list.csv"), bundle=tiny.path, out=tmp_path / "scores", devices="cpu")
    )
    table = pq.read_table(sorted((tmp_path / "scores").glob("part-*.parquet")))
    wanted = [answer.score for answer in Scorer.open(tiny.path, device="cpu").score(images)]
    assert table["row"].to_pylist() == list(range(100))
    assert np.allclose(table["score"].to_pylist(), wanted, atol=1e-6)


def with_int8(bundle: Bundle, max_abs_diff: float) -> Bundle:
    parity = Parity(10, max_abs_diff, max_abs_diff, 1.0, 0.08, 0.995, accepted=True)
    graph = bundle.info.graphs["fp32"]
    graphs = {"fp32": graph, "int8": Graph(graph.file, graph.opset, parity)}
    from dataclasses import replace

    return replace(bundle, info=replace(bundle.info, graphs=graphs))


@pytest.mark.parametrize(
    ("fast", "off", "expected"), [(True, 0.01, "int8"), (False, 0.01, "fp32"), (True, 0.2, "fp32")]
)
def test_auto_takes_int8_where_it_is_fast_and_has_passed(tiny, monkeypatch, fast, off, expected):
    monkeypatch.setattr(precisions, "fast_int8", lambda: fast)
    bundle = with_int8(tiny, off)
    assert choose_precision(bundle, "auto") == expected
    assert choose_precision(bundle, "int8") == "int8"
    assert choose_precision(bundle, "auto", ["cuda:0"]) == "fp32"
    with pytest.raises(UsageError, match='precision="int8" is for CPUs'):
        choose_precision(bundle, "int8", ["cuda:0"])


@pytest.mark.parametrize(
    ("flags", "fast"),
    [("sse2 avx2", False), ("avx512f avx512_vnni", True), ("avx_vnni", True), ("amx_int8", True), ("asimddp", True)],
)
def test_processors_with_fast_int8(monkeypatch, flags, fast):
    monkeypatch.setattr(host, "_cpuinfo", lambda: {"flags": flags})
    assert host.fast_int8() is fast
    assert flags.split()[0] in host.processor()


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [("x86_64", "avx2", True), ("x86_64", "avx2 avx_vnni", False), ("aarch64", "asimd", False)],
)
def test_a_processor_on_which_int8_may_overflow_is_said_once(tiny, monkeypatch, caplog, machine, flags, expected):
    monkeypatch.setattr(host, "_cpuinfo", lambda: {"flags": flags})
    monkeypatch.setattr(platform, "machine", lambda: machine)
    precisions._warn_of_saturation.cache_clear()
    bundle = with_int8(tiny, 0.01)
    assert [choose_precision(bundle, "int8") for _ in range(2)] == ["int8", "int8"]
    assert choose_precision(bundle, "auto") == ("int8" if "vnni" in flags else "fp32")
    precisions._warn_of_saturation.cache_clear()
    assert [record.getMessage().startswith("this processor has no VNNI") for record in caplog.records] == [
        True
    ] * expected


def test_settings_of_the_cuda_provider_from_the_environment():
    from pscr_engine.backends.onnxruntime_cuda import settings_from
    from pscr_engine.errors import UsageError

    assert settings_from("") == {}
    assert settings_from("fuse_conv_bias=1, prefer_nhwc=0") == {"fuse_conv_bias": "1", "prefer_nhwc": "0"}
    for text in ("fuse_conv_bias", "device_id=1", "user_compute_stream=7"):
        with pytest.raises(UsageError, match="is no setting; write fuse_conv_bias=1"):
            settings_from(text)
