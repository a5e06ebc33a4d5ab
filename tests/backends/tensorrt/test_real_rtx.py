"""The real TensorRT for RTX compiles what export makes: no GPU is needed for that."""

import json
import shutil
import signal
import subprocess
import sys

import onnx
import pytest

from benchmarks.plans import PRECISIONS, write_graph
from pscr_engine.backends.tensorrt.library import RTX
from pscr_engine.models import DEFAULT_MODEL, find_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RTX.installed, reason="TensorRT for RTX is not installed (no wheels for this Python)"),
]


@pytest.fixture
def bundle(tmp_path):
    """Copy the shipped model, and return the copy's folder."""
    return shutil.copytree(find_model(DEFAULT_MODEL).path, tmp_path / "m.pscr")


def compile_(*arguments):
    return [sys.executable, "-m", "pscr_engine", "compile", "--backend", "tensorrt-rtx", *map(str, arguments)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "vgg16", "vgg19", "inceptionv4", "vit", "swin", "mae"])
def test_a_real_plan_for_every_backbone(tmp_path, backbone, precision):
    graph = tmp_path / "scorer.onnx"
    shape = write_graph(backbone, precision, graph)
    # In a process of its own: whatever the library does with memory ends with it.
    outcome = subprocess.run(
        [sys.executable, "-m", "benchmarks.plans", "--one", graph, *map(str, shape)], capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stderr
    facts = json.loads(outcome.stdout)
    assert facts["plan_mb"] > 0.9 * facts["graph_mb"], "the plan holds the weights"


def test_the_shipped_model_is_compiled_by_the_command(bundle):
    outcome = subprocess.run(compile_("--bundle", bundle, "--precision", "all"), capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    records = [json.loads(file.read_text()) for file in sorted((bundle / "plans").glob("*.json"))]
    assert [record["key"]["precision"] for record in records] == ["fp16", "fp32"]
    for record in records:
        assert record["key"]["flavour"] == "tensorrt-rtx"
        assert record["parity"] is None
    assert outcome.stdout.count("not yet checked on a GPU") == 2
    named = subprocess.run(
        compile_("--bundle", bundle, "--compute-capability", "8.6,8.9,12.0"), capture_output=True, text=True
    )
    assert named.returncode == 0, named.stderr
    unknown = subprocess.run(
        compile_("--bundle", bundle, "--compute-capability", "9.0"), capture_output=True, text=True
    )
    assert unknown.returncode == 2
    assert "--compute-capability 9.0: TensorRT for RTX" in unknown.stderr


def test_a_graph_that_it_cannot_read_is_refused_by_the_node(bundle):
    file = bundle / "scorer.fp16.onnx"
    graph = onnx.load(file)
    next(node for node in graph.graph.node if node.op_type == "ReduceMean").op_type = "Nonexistent"
    onnx.save(graph, file)
    manifest = json.loads((bundle / "bundle.json").read_text())
    outcome = _with_new_digests(bundle, manifest, compile_("--bundle", bundle))
    assert outcome.returncode == 1
    (line,) = [line for line in outcome.stderr.splitlines() if line.startswith("error:")]
    assert "TensorRT can't read it: node " in line
    assert "(Nonexistent)" in line
    assert not list((bundle / "plans").iterdir())


def _with_new_digests(bundle, manifest, command):
    """Run a command on a bundle whose files have been changed on purpose."""
    from pscr_engine.atomic import sha256_of

    manifest["files"] = {
        name: {"sha256": sha256_of(bundle / name), "bytes": (bundle / name).stat().st_size}
        for name in manifest["files"]
    }
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return subprocess.run(command, capture_output=True, text=True)


def test_ctrl_c_stops_a_real_build(bundle):
    process = subprocess.Popen(compile_("--bundle", bundle), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline().startswith("building a plan")  # it takes a second or more
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=360)
    assert process.returncode == 130, err
    assert not list((bundle / "plans").iterdir())
