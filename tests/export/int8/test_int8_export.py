import json
import shutil
from typing import Any

import numpy as np
import onnx
import pytest
from pscr_export.export import ExportConfig, export_bundle
from pscr_training.untrained import write_untrained_checkpoint

from pscr_engine import Scorer
from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.backends.openvino_graph import arranged
from pscr_engine.bundle import Bundle
from pscr_engine.errors import ParityError, UsageError

from ...conftest import REFERENCE

EXEMPLARS = REFERENCE / "images" / "exemplars.csv"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, checkpoint):
    out = tmp_path_factory.mktemp("int8") / "model.pscr"
    queries = str(REFERENCE / "images" / "queries")
    return export_bundle(
        ExportConfig(checkpoint("resnet18"), EXEMPLARS, out, precisions=("fp32", "int8"), calibration=queries)
    )


@pytest.mark.slow
def test_int8_scores_are_near_the_references_and_the_choice_is_kept(bundle, golden):
    graph = bundle.info.graphs["int8"]
    assert graph.parity.passed
    how = graph.quantisation
    assert how is not None
    assert how["chosen"] in how["tried"]
    assert how["calibration_images"] == 6  # half of the images that were given
    assert graph.parity.images == 10 + 12 - 6  # exemplars and given images, less those
    assert json.loads((bundle.path / "bundle.json").read_text())["precisions"]["int8"]["quantisation"] == how
    assert Bundle.open(bundle.path).info.graphs["int8"] == graph
    wanted = golden["models"]["resnet18"]["runs"]["ops"]["score"]
    scorer = Scorer.open(bundle.path, device="cpu", precision="int8")
    got = np.array([image.score for image in scorer.score([REFERENCE / "images" / name for name in wanted])])
    difference = np.abs(got - np.array(list(wanted.values())))
    assert difference.max() < graph.parity.tolerance
    assert difference.max() > 1e-5  # it is another network


@pytest.mark.slow
def test_the_trunk_is_integer_but_for_what_the_search_left_in_float(bundle):
    graph = onnx.load(bundle.graph_path("int8")).graph
    (scan,) = (node for node in graph.node if node.op_type == "Scan")
    graphs = [graph, next(attribute.g for attribute in scan.attribute if attribute.name == "body")]
    nodes = [node for each in graphs for node in each.node]
    weights = {tensor.name: tensor for each in graphs for tensor in each.initializer}
    producers = {name: node for node in nodes for name in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 20
    in_float = len(bundle.info.graphs["int8"].quantisation.get("in_float", {}).get("operators", []))
    if not in_float:
        assert not [node for node in nodes if node.op_type == "Cast"]  # integers from the first byte on
        for_openvino = onnx.load_from_string(arranged(bundle.graph_path("int8"))).graph
        assert [64, 3, 7, 7] in [list(tensor.dims) for tensor in for_openvino.initializer]
    assert len([node for node in convolutions if node.input[1] in weights]) == in_float
    for node in (node for node in convolutions if node.input[1] not in weights):
        pixels, kernel = (producers[name] for name in node.input[:2])
        if pixels.op_type == "Transpose":  # the first convolution's: bytes are dequantised before
            pixels = producers[pixels.input[0]]
        assert (pixels.op_type, kernel.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert weights[kernel.input[0]].data_type == onnx.TensorProto.INT8
        assert len(weights[kernel.input[1]].dims) == 1  # a scale per channel


@pytest.mark.slow
def test_scores_do_not_depend_on_the_batch(bundle):
    backend = OnnxRuntimeBackend(bundle.graph_path("int8"), bundle.exemplars, precision="int8")
    patches = np.random.default_rng(0).integers(0, 256, (5 * 9, 224, 224, 3), dtype=np.uint8)
    together = backend.score(patches).score
    apart = np.concatenate([backend.score(patches[i * 9 : i * 9 + 9]).score for i in range(5)])
    assert np.abs(together - apart).max() < 1e-5


@pytest.mark.slow
def test_a_patch_by_itself_has_the_score_of_copies_of_it(bundle):
    scorer = Scorer.open(bundle.path, device="cpu", precision="int8")
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    patches = np.empty((9, 224, 224, 3), np.uint8)
    bundle.info.sampling.sample(image, patches)
    backend: Any = scorer.backend
    copies = backend.score(np.repeat(patches, 9, axis=0))
    explained = [patch.score for patch in scorer.explain(image).patches]
    assert explained == pytest.approx(copies.score.tolist(), abs=1e-6)


@pytest.mark.slow
def test_a_graph_that_is_too_far_off_leaves_no_bundle(tmp_path, monkeypatch, checkpoint):
    from pscr_export.int8 import quantise

    from pscr_engine.bundle import parity

    monkeypatch.setitem(parity.TOLERANCES, "int8", (1e-7, 0.995))
    monkeypatch.setattr(quantise, "METHODS", ("min-max",))  # each way takes its time
    monkeypatch.setattr(quantise, "_FIRST_IN_FLOAT", (1,))
    monkeypatch.setattr(quantise, "_ERROR_LEFT", (1 / 4,))
    config = ExportConfig(checkpoint("resnet18"), EXEMPLARS, tmp_path / "model.pscr", precisions=("int8",))
    with pytest.raises(ParityError, match=r"int8 parity on 5 images: max \|difference\| .* failed; no bundle was made"):
        export_bundle(config)
    assert not (tmp_path / "model.pscr").exists()
    assert not list(tmp_path.iterdir())


def test_one_image_is_too_few(tmp_path):
    write_untrained_checkpoint(tmp_path / "model.pt")
    shutil.copy(REFERENCE / "images" / "exemplars" / "e01_cat.png", tmp_path)
    (tmp_path / "one.csv").write_text("path,mos\ne01_cat.png,3\n")
    config = ExportConfig(
        tmp_path / "model.pt", tmp_path / "one.csv", tmp_path / "out.pscr", precisions=("int8",), label_range=(1, 5)
    )
    with pytest.raises(UsageError, match="name some with calibration"):
        export_bundle(config)
