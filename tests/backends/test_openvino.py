"""OpenVINO itself, on the tiny bundle: scores, threads, its cache, its checks, and the choice between engines."""

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pscr_engine import Scorer
from pscr_engine.backends import cpu, engine_choice
from pscr_engine.backends import openvino as openvino_backend
from pscr_engine.backends.findings import findings
from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.backends.openvino import OpenVinoBackend
from pscr_engine.backends.precision import choose_precision
from pscr_engine.backends.registry import create_backend
from pscr_engine.bundle import Bundle, Graph, Parity
from pscr_engine.errors import BackendError, ParityError, UsageError
from pscr_engine.stages.infer import BatchScores

from ..helpers.images import encoded, pixels


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, measuring_engines):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pscr-engine"


def patches_for(bundle: Bundle, images: int) -> np.ndarray:
    shape = (images * bundle.info.sampling.patches, bundle.info.patch_size, bundle.info.patch_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def opened(bundle: Bundle, **settings) -> OpenVinoBackend:
    sampling = bundle.info.sampling
    return OpenVinoBackend(
        bundle.graph_path("fp32"),
        bundle.exemplars,
        patches=sampling.patches,
        patch_size=sampling.patch_size,
        **settings,
    )


def test_scores_exemplar_scores_and_features_are_those_of_onnxruntime(tiny):
    patches = patches_for(tiny, 5)
    wanted = OnnxRuntimeBackend(tiny.graph_path("fp32"), tiny.exemplars).score(patches, features=True)
    got = opened(tiny).score(patches, features=True)
    for name in ("score", "exemplar_scores", "features"):
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), atol=1e-5)
    assert opened(tiny).score(patches).features is None


def test_answers_stay_when_the_next_image_is_scored(tiny):
    backend = opened(tiny)
    patches, D = patches_for(tiny, 2), tiny.info.sampling.patches
    first = backend.score(patches[:D])
    kept = first.score.copy()
    backend.score(patches[D:])
    assert np.array_equal(first.score, kept)


def test_many_threads_get_their_own_answers(tiny):
    backend = opened(tiny, throughput=True, threads=4)
    assert 1 <= backend.runs <= 4
    patches, D = patches_for(tiny, 200), tiny.info.sampling.patches
    with ThreadPoolExecutor(16) as pool:
        apart = list(pool.map(lambda i: backend.score(patches[i * D : i * D + D]).score[0], range(200)))
    np.testing.assert_allclose(apart, opened(tiny).score(patches).score, atol=1e-6)


def test_the_compiled_graph_is_kept_and_used_and_mended(tiny, cache):
    patches = patches_for(tiny, 2)
    first = opened(tiny, content="a").score(patches)
    (kept,) = (cache / "graphs").iterdir()
    tiny.graph_path("fp32").write_bytes(b"no graph at all")
    again = opened(tiny, content="a").score(patches)
    assert np.array_equal(first.score, again.score)
    for damage in (b"", b"no graph at all", kept.read_bytes()[:-100]):
        kept.write_bytes(damage)
        with pytest.raises(BackendError, match="OpenVINO can't run it"):  # read anew from the graph, which is none
            opened(tiny, content="a")
        assert not kept.exists()


@pytest.mark.medium
def test_a_cache_that_cant_be_written_stops_nothing(tiny, cache, caplog):
    cache.parent.mkdir()
    cache.write_bytes(b"a file where a folder should be")
    caplog.set_level(logging.INFO, "pscr_engine")
    backend: Any = create_backend(tiny, device="cpu", tune=True)
    assert backend.score(patches_for(tiny, 1)).score.shape == (1,)
    assert any("can't be kept in the user's cache" in record.getMessage() for record in caplog.records)


def test_auto_measures_once_and_remembers(tiny, cache, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "pscr_engine")
    monkeypatch.setattr(engine_choice, "_SECONDS_PER_ROUND", 0.01)
    rates = iter([{"onnxruntime": 10.0, "openvino": 11.0}])
    monkeypatch.setattr(engine_choice, "measure_rates", lambda *_: next(rates))
    for _ in range(2):
        assert create_backend(tiny, device="cpu", tune=True, throughput=True).name == "openvino"
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("engine ")]
    assert said == [
        "engine openvino (onnxruntime 10 images/s, openvino 11 images/s, measured now)",
        "engine openvino (onnxruntime 10 images/s, openvino 11 images/s, measured on this host before)",
    ]
    (finding,) = findings(engine_choice.KIND)
    assert finding["found"]["engine"] == "openvino"
    assert finding["depends_on"]["bundle"] == tiny.digest


def test_real_rates_are_measured_of_both(tiny, monkeypatch):
    monkeypatch.setattr(engine_choice, "_SECONDS_PER_ROUND", 0.02)
    backend = create_backend(tiny, device="cpu", tune=True, throughput=True)
    (finding,) = findings(engine_choice.KIND)
    assert finding["found"]["engine"] == backend.name
    assert set(finding["found"]["rates"]) == {"onnxruntime", "openvino"}
    assert all(rate > 0 for rate in finding["found"]["rates"].values())


@pytest.mark.parametrize(("openvino", "wanted"), [(10.2, "onnxruntime"), (10.4, "openvino"), (5.0, "onnxruntime")])
def test_the_engine_of_the_checks_stays_unless_the_other_is_clearly_faster(tiny, monkeypatch, openvino, wanted):
    monkeypatch.setattr(engine_choice, "measure_rates", lambda *_: {"onnxruntime": 10.0, "openvino": openvino})
    assert create_backend(tiny, device="cpu", tune=True).name == wanted


def test_a_host_can_say_what_auto_means(tiny, monkeypatch):
    monkeypatch.setenv("PSCR_ENGINE_CPU_BACKEND", "openvino")
    assert create_backend(tiny, device="cpu").name == "openvino"
    assert create_backend(tiny, device="cpu", backend="onnxruntime").name == "onnxruntime"
    monkeypatch.setenv("PSCR_ENGINE_CPU_BACKEND", "tensorrt")
    with pytest.raises(UsageError, match="PSCR_ENGINE_CPU_BACKEND is 'tensorrt': set it to onnxruntime or openvino"):
        create_backend(tiny, device="cpu")


def test_little_work_is_not_worth_measuring(tiny):
    assert create_backend(tiny, device="cpu").name == "onnxruntime"
    assert findings(engine_choice.KIND) == []


def test_other_threads_and_other_bundles_are_measured_anew(tiny, monkeypatch):
    asked = []

    def measure_rates(*_):
        asked.append(1)
        return {"onnxruntime": 1.0, "openvino": 2.0}

    monkeypatch.setattr(engine_choice, "measure_rates", measure_rates)
    create_backend(tiny, device="cpu", tune=True, threads=1)
    create_backend(tiny, device="cpu", tune=True, threads=2)
    create_backend(tiny, device="cpu", tune=True, threads=2, throughput=True)
    assert create_backend(tiny, device="cpu", threads=2).name == "openvino"
    assert len(asked) == 2


def test_an_openvino_that_does_not_start_is_one_line_and_onnxruntime_goes_on(tiny, caplog, monkeypatch):
    def broken():
        raise BackendError("OpenVINO does not start: no plugin")

    monkeypatch.setattr(openvino_backend, "openvino_core", broken)
    monkeypatch.setattr(cpu, "openvino_version", lambda: broken())
    assert create_backend(tiny, device="cpu", tune=True).name == "onnxruntime"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["OpenVINO does not start: no plugin; going on without openvino"]
    with pytest.raises(BackendError, match="no plugin"):
        create_backend(tiny, device="cpu", backend="openvino")
    assert findings(engine_choice.KIND) == []


def test_an_engine_that_was_faster_and_no_longer_starts_is_one_line_too(tiny, caplog, monkeypatch):
    monkeypatch.setattr(engine_choice, "measure_rates", lambda *_: {"onnxruntime": 1.0, "openvino": 2.0})
    assert create_backend(tiny, device="cpu", tune=True).name == "openvino"

    def broken():
        raise BackendError("OpenVINO does not start: no plugin")

    monkeypatch.setattr(openvino_backend, "openvino_core", broken)
    assert create_backend(tiny, device="cpu").name == "onnxruntime"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["OpenVINO does not start: no plugin; going on with onnxruntime"]


class _OffByOne(OpenVinoBackend):
    def score(self, patches, *, features=False):
        answer = super().score(patches, features=features)
        return BatchScores(answer.score + 1, answer.exemplar_scores, answer.features)


def test_scores_that_are_off_are_refused_with_the_figures(tiny, caplog, monkeypatch):
    monkeypatch.setattr(cpu, "OpenVinoBackend", _OffByOne)
    for _ in range(2):  # the second time from the record
        with pytest.raises(
            ParityError, match=r"OpenVINO in FP32 is refused: on 6 images .* by up to 1.00e\+00 \(allowed"
        ):
            create_backend(tiny, device="cpu", backend="openvino")
    assert len(findings(cpu.CHECKS)) == 1
    assert create_backend(tiny, device="cpu", tune=True).name == "onnxruntime"
    assert any("going on without openvino" in record.getMessage() for record in caplog.records)


def test_bf16_is_refused_in_one_line_where_the_processor_has_none(tiny, monkeypatch):
    monkeypatch.setattr(openvino_backend, "has_bf16", lambda: False)
    with pytest.raises(BackendError, match="this processor has no BF16 instructions"):
        create_backend(tiny, device="cpu", precision="bf16")
    assert choose_precision(tiny, "auto") in ("fp32", "int8")
    with pytest.raises(UsageError, match='precision="bf16" is OpenVINO'):
        create_backend(tiny, device="cpu", precision="bf16", backend="onnxruntime")
    with pytest.raises(UsageError, match='precision="bf16" is for CPUs'):
        choose_precision(tiny, "bf16", ["cuda:0"])


def with_int8(bundle: Bundle, *, passed: bool) -> Bundle:
    graph = bundle.info.graphs["fp32"]
    parity = Parity(10, 0.01 if passed else 0.2, 0.01, 1.0, 0.08, 0.995, accepted=True)
    graphs = {"fp32": graph, "int8": Graph(graph.file, graph.opset, parity)}
    return replace(bundle, info=replace(bundle.info, graphs=graphs))


@pytest.mark.medium
def test_auto_is_int8_then_bf16_then_fp32(tiny, monkeypatch):
    # A processor that is said to have the instructions; OpenVINO computes in FP32 instead, which passes the check.
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr(cpu, "has_bf16", lambda: True)
    monkeypatch.setattr(openvino_backend, "has_bf16", lambda: True)
    monkeypatch.setattr("pscr_engine.backends.precision.fast_int8", lambda: True)
    monkeypatch.setitem(openvino_backend._HINTS, "bf16", "f32")
    assert choose_precision(with_int8(tiny, passed=True), "auto") == "int8"
    assert choose_precision(with_int8(tiny, passed=False), "auto") == "bf16"
    assert choose_precision(tiny, "auto") == "bf16"
    assert choose_precision(tiny, "auto", backend="onnxruntime") == "fp32"
    backend = create_backend(tiny, device="cpu")
    assert (backend.name, backend.precision) == ("openvino", "bf16")
    monkeypatch.setattr(cpu, "OpenVinoBackend", _OffByOne)
    other = replace(tiny, digest="0" * 64)
    assert choose_precision(other, "auto") == "fp32"
    with pytest.raises(ParityError, match="OpenVINO in BF16 is refused: on 48 images"):
        choose_precision(other, "bf16")


def test_a_scorer_and_a_run_with_openvino_give_the_scores_of_onnxruntime(tiny, tmp_path, cli):
    images = [pixels(60 + index, 50, seed=index) for index in range(30)]
    for index, image in enumerate(images):
        (tmp_path / f"{index:02d}.png").write_bytes(encoded(image))
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{index:02d}.png\n" for index in range(30)))
    wanted = [answer.score for answer in Scorer.open(tiny.path, device="cpu", backend="onnxruntime").score(images)]
    scorer = Scorer.open(tiny.path, device="cpu", backend="openvino")
    assert scorer.backend.name == "openvino"
    np.testing.assert_allclose([answer.score for answer in scorer.score(images)], wanted, atol=1e-5)
    import pyarrow.parquet as pq

    for devices, out in (("cpu", "one"), ("cpu,cpu", "two")):
        done = cli(
            "score", "--manifest", "list.csv", "--bundle", tiny.path, "--backend", "openvino", "--devices", devices,
            "--chunk-rows", 7, "--out", out,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / out / "_SUCCESS").read_text())["backend"] == "openvino"
        table = pq.read_table(sorted((tmp_path / out).glob("part-*.parquet")))
        np.testing.assert_allclose(table["score"].to_pylist(), wanted, atol=1e-5)


def test_without_the_package_there_is_advice(tiny):
    code = (
        "import sys; sys.modules['openvino'] = None\n"
        "from pscr_engine import Scorer\n"
        f"try: Scorer.open({str(tiny.path)!r}, device='cpu', backend='openvino')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("MissingDependencyError")
    assert "pscr-engine[cpu,openvino]" in said


def test_doctor_says_which_engine_is_faster(tiny, cli, monkeypatch):
    monkeypatch.setattr(engine_choice, "measure_rates", lambda *_: {"onnxruntime": 1.0, "openvino": 2.0})
    create_backend(tiny, device="cpu", tune=True, threads=2, throughput=True)
    said = cli("doctor").stdout
    assert "openvino for tiny in fp32, 2 threads (onnxruntime 1 images/s, openvino 2 images/s" in said
    facts = json.loads(cli("doctor", "--json").stdout)
    assert len(facts["engines"]) == 1
    assert facts["abilities"]["score on the CPU with OpenVINO, too"][0] is True
