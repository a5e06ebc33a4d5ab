"""The export as a whole, on an untrained checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from pscr_export.export import ExportConfig, export_bundle
from pscr_training.untrained import write_untrained_checkpoint

from pscr_engine import Scorer
from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.bundle import Bundle, Exemplars
from pscr_engine.errors import ExemplarError, OutputError, ParityError, UsageError
from pscr_engine.synthetic import write_images


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_untrained_checkpoint(folder / "c.pt")
    return folder / "c.pt", write_images(folder / "images", "e.csv", 4, 1)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "model.pscr"


@pytest.mark.slow
def test_the_graph_is_as_documented(inputs: tuple[Path, Path], out):
    bundle = export_bundle(ExportConfig(*inputs, out, num_exemplars=2, opset=18, calibration=str(inputs[1].parent)))
    assert bundle.exemplars.count == 2
    assert bundle.info.exemplars["listed"] == 4
    assert bundle.info.graphs["fp32"].parity.images == 6
    assert bundle.info.graphs["fp32"].opset == 18
    model = onnx.load(out / "scorer.fp32.onnx")
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes["patches"][1:] == [224, 224, 3]
    assert shapes["exemplar_hidden"] == ["M", 512]
    assert shapes["score"] == ["B"]
    assert shapes["exemplar_scores"] == ["B", "M"]
    assert shapes["features"] == ["B", 512]
    # Nothing of the machine that made it.
    assert str(out.parent).encode() not in (out / "scorer.fp32.onnx").read_bytes()
    assert b"site-packages" not in (out / "scorer.fp32.onnx").read_bytes()
    assert sorted(os.listdir(out)) == ["bundle.json", "exemplars.parquet", "exemplars.safetensors", "scorer.fp32.onnx"]


@pytest.mark.slow
def test_nothing_but_a_cast_reads_the_patches(inputs: tuple[Path, Path], out):
    """Check what reads the patches, since TensorRT takes uint8 as an input only."""
    checkpoint, exemplars = inputs
    bundle = export_bundle(ExportConfig(checkpoint, exemplars, out, precisions=("fp32", "fp16")))
    for precision in ("fp32", "fp16"):
        graph = onnx.load(bundle.graph_path(precision)).graph
        assert [node.op_type for node in graph.node if "patches" in node.input] == ["Cast"]


@pytest.mark.slow
def test_a_failed_parity_check_leaves_no_bundle_unless_it_is_accepted(inputs: tuple[Path, Path], out):
    # A label range this narrow makes the tolerance far smaller than FP16's rounding.
    settings = {"precisions": ("fp16",), "label_range": (0.0, 1e-6)}
    with pytest.raises(ParityError, match="accept_parity fp16"):
        export_bundle(ExportConfig(*inputs, out, **settings))
    assert os.listdir(out.parent) == []
    accepted = ExportConfig(*inputs, out, **settings, accept_parity=frozenset(["fp16"]))
    parity = export_bundle(accepted).info.graphs["fp16"].parity
    assert (parity.passed, parity.accepted) == (False, True)


@pytest.mark.slow
def test_an_interrupted_export_leaves_nothing_and_the_old_bundle_stays(inputs: tuple[Path, Path], out):
    export_bundle(ExportConfig(*inputs, out, num_exemplars=2))
    before = Bundle.open(out).digest
    checkpoint, exemplars = inputs
    inputs_named = ["--ckpt", str(checkpoint), "--exemplars", str(exemplars)]
    command = [sys.executable, "-m", "pscr_engine", "export", *inputs_named]
    for number, code in [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]:
        process = subprocess.Popen([*command, "--out", out, "--overwrite"], stderr=subprocess.DEVNULL)
        while not list(out.parent.glob(".*")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) == code
        assert Bundle.open(out).digest == before
        assert len(os.listdir(out.parent)) == (1 if number == signal.SIGINT else 2)
    export_bundle(ExportConfig(*inputs, out, num_exemplars=3, overwrite=True))
    assert os.listdir(out.parent) == ["model.pscr"]
    assert Bundle.open(out).exemplars.count == 3


@pytest.mark.slow
def test_exemplars_can_be_changed_without_a_new_export(inputs: tuple[Path, Path], out):
    bundle = export_bundle(ExportConfig(*inputs, out))
    image = inputs[1].parent / "0000.jpg"
    everything = Scorer.open(out).score(image, exemplar_scores=True)
    cache = bundle.exemplars
    for kept in ([2], [3, 0], [0, 1, 2, 3, 3, 3]):
        fewer = Exemplars(cache.hidden[kept], cache.labels[kept], cache.features[kept])
        scorer = Scorer(bundle, OnnxRuntimeBackend(bundle.graph_path("fp32"), fewer))
        scored = scorer.score(image, exemplar_scores=True)
        assert scored.exemplar_scores == pytest.approx(everything.exemplar_scores[kept], abs=1e-6)
        assert scored.score == pytest.approx(everything.exemplar_scores[kept].mean(), abs=1e-6)


def test_what_is_in_the_way_is_not_touched(inputs: tuple[Path, Path], out):
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="not a bundle"):
            export_bundle(ExportConfig(*inputs, out, overwrite=overwrite))
    (out / "bundle.json").write_text(json.dumps({}))
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"holds thesis\.tex"):
            export_bundle(ExportConfig(*inputs, out, overwrite=overwrite))
    assert (out / "thesis.tex").exists()


def test_settings_that_make_no_sense(inputs: tuple[Path, Path], out, tmp_path):
    for settings in ({"precisions": ()}, {"precisions": ("fp8",)}, {"num_exemplars": 0}, {"label_range": (2.0, 1.0)}):
        with pytest.raises(UsageError):
            ExportConfig(*inputs, out, **settings)
    same = inputs[1].parent / "same.csv"
    same.write_text("path,mos\n0000.jpg,3\n0001.jpg,3\n")
    with pytest.raises(ExemplarError, match="label_range LOW HIGH"):
        export_bundle(ExportConfig(inputs[0], same, out))
    assert not out.exists()
