"""`compile`, and `score` with its plan, as whole commands: real but for the driver and for TensorRT itself."""

import json
import re
import signal
import time

import pytest

from tests.cuda.commands import PretendHost

from .scored import scores

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return PretendHost(tmp_path_factory.mktemp("host"))


def plans(bundle):
    return sorted(path.name for path in (bundle / "plans").glob("*")) if (bundle / "plans").exists() else []


def compile_(host, bundle, *options, **environment):
    return host.run("compile", "--bundle", bundle, *options, **environment)


def test_a_plan_is_built_once_and_scores_as_the_processor_does(host, bundle, images, tmp_path):
    built = compile_(host, bundle)
    assert built.returncode == 0, built.stderr
    assert "building a plan for pretended GPU, TensorRT 10.13.3.9 (there is none)" in built.stderr
    assert "parity on 48 images: max |difference|" in built.stdout
    record = json.loads((bundle / "plans" / plans(bundle)[0]).read_text())
    assert record["key"]["precision"] == "fp16"
    assert record["parity"]["passed"]
    again = compile_(host, bundle)
    assert "up to date" in again.stdout
    assert "building" not in again.stderr
    score = ("score", "--manifest", images, "--bundle", bundle)
    on_gpu = host.run(*score, "--out", tmp_path / "gpu", "--backend", "tensorrt")
    assert on_gpu.returncode == 0, on_gpu.stderr
    on_host = host.run(*score, "--out", tmp_path / "cpu", "--devices", "cpu")
    assert on_host.returncode == 0, on_host.stderr
    mine, other = scores(tmp_path / "gpu"), scores(tmp_path / "cpu")
    assert mine["row"] == other["row"] == list(range(30))
    for name in ("score", "score_std"):
        assert mine[name] == pytest.approx(other[name], abs=1e-5)


def test_a_stale_plan_is_built_again_and_never_used(host, bundle, images, tmp_path):
    assert compile_(host, bundle).returncode == 0
    newer = {"FAKE_TENSORRT_VERSION": "11.4.0"}
    score = ("score", "--manifest", images, "--bundle", bundle, "--out", tmp_path / "scores")
    refused = host.run(*score, "--backend", "tensorrt", **newer)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        f"error: {bundle}: no TensorRT plan for pretended GPU: it was built for TensorRT 10.13.3.9, this is 11.4.0; "
        f"pscr-engine compile --bundle {bundle} makes one"
    )
    fallen_back = host.run(*score, **newer)
    assert fallen_back.returncode == 0, fallen_back.stderr
    assert "going on with ONNX Runtime" in fallen_back.stderr
    rebuilt = compile_(host, bundle, **newer)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "(it was built for TensorRT 10.13.3.9, this is 11.4.0)" in rebuilt.stderr
    assert len(plans(bundle)) == 4


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("off_by_one", "the plan for pretended GPU is refused: on 48 images its scores differ .* by up to 1.00e"),
        ("no_plan", "TensorRT can't build a plan: no kernel was found"),
        ("no_memory", "too little memory to build the plan; use a smaller --batch-size"),
        ("unreadable", r"TensorRT can't read it: node conv_1 \(Conv\): no such thing"),
        ("refuses", "TensorRT refuses the plan: the plan is of another platform"),
    ],
)
def test_a_plan_that_fails_leaves_nothing(host, bundle, mode, message):
    outcome = compile_(host, bundle, FAKE_TENSORRT=mode)
    assert outcome.returncode == 1
    (line,) = [line for line in outcome.stderr.splitlines() if line.startswith("error:")]
    assert re.search(message, line), line
    assert plans(bundle) == []


def test_ctrl_c_stops_a_build_and_leaves_nothing(host, bundle):
    process = host.start("compile", "--bundle", bundle, FAKE_TENSORRT="slow")
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, err = process.communicate(timeout=90)
    assert time.monotonic() - start < 5
    assert process.returncode == 130, err
    assert plans(bundle) == []


@pytest.mark.parametrize("version", ["10.12.0.36", "12.0.1"])
def test_other_versions_are_refused(host, bundle, version):
    outcome = compile_(host, bundle, FAKE_TENSORRT_VERSION=version)
    assert outcome.returncode == 1
    assert f"TensorRT {version}: pscr-engine needs 10.13 or later, below 12" in outcome.stderr


def test_without_a_gpu_it_is_one_line(tmp_path, bundle):
    outcome = compile_(PretendHost(tmp_path / "none", gpus=0), bundle)
    assert outcome.returncode == 0, "TensorRT for RTX builds without a GPU"
    outcome = compile_(PretendHost(tmp_path / "none", gpus=0), bundle, "--backend", "tensorrt")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: TensorRT builds on the GPU that a plan is for, and there is none here")
    assert outcome.stderr.count("\n") == 1
