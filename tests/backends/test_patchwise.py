import numpy as np
import onnx
import pytest

from pscr_engine.backends.onnxruntime import OnnxRuntimeBackend
from pscr_engine.backends.patchwise import PatchwiseEngine
from pscr_engine.errors import BackendError
from pscr_engine.models import find_model

from ..helpers.tiny import make_bundle


def patches_of(bundle, images):
    P = bundle.info.patch_size
    chance = np.random.default_rng(5)
    # Smooth rather than noise, for INT8's ranges are those of images.
    small = chance.integers(0, 256, (images * bundle.info.sampling.patches, 8, 8, 3))
    return np.repeat(np.repeat(small, P // 8, axis=1), P // 8, axis=2).astype(np.uint8)


def compare(bundle, precision):
    """Compare the scores of two images with those that both halves give, for the mean of all patches."""
    patches = patches_of(bundle, 2)
    graph = bundle.graph_path(precision)
    whole = OnnxRuntimeBackend(graph, bundle.exemplars, precision=precision).score(patches, features=True)
    engine = PatchwiseEngine(graph, bundle.exemplars, precision=precision)
    one_by_one = np.concatenate([engine.features(patch[None]) for patch in patches])
    np.testing.assert_allclose(one_by_one, engine.features(patches), atol=2e-5)
    answer = engine.compare(one_by_one.reshape(2, bundle.info.sampling.patches, -1).mean(axis=1))
    np.testing.assert_allclose(answer.score, whole.score, atol=1e-5)
    np.testing.assert_allclose(answer.exemplar_scores, whole.exemplar_scores, atol=1e-5)
    np.testing.assert_allclose(answer.features, whole.features, atol=1e-4)


@pytest.mark.parametrize("sampling", ["ops", "nops", "none"])
def test_halves_give_the_scores_of_the_whole(tmp_path, sampling):
    compare(make_bundle(tmp_path / "m.pscr", sampling=sampling), "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_halves_of_the_shipped_model(precision):
    compare(find_model("agiqa3k-lite0").open(), precision)


def test_a_graph_of_another_form_is_refused_in_a_line(tmp_path):
    bundle = make_bundle(tmp_path / "m.pscr")
    model = onnx.load(bundle.graph_path("fp32"))
    for node in model.graph.node:
        if node.output[0] == "features":
            node.op_type = "ReduceMax"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(BackendError, match=r"can't be cut into patches and images .*ReduceMax.*export the bundle anew"):
        PatchwiseEngine(tmp_path / "other.onnx", bundle.exemplars)
