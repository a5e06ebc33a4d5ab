"""Weights are stored in 16 bits only where nothing is lost."""

import numpy as np
import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from pscr_export.half_weights import store_exact_halves


def product(weight):
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def run(path, x):
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), exact=st.booleans(), shift=st.sampled_from([1.0, 1e5, 1e-9]))
def test_results_stay_the_same_to_the_bit(tmp_path_factory, seed, exact, shift):
    path = tmp_path_factory.mktemp("graph") / "g.onnx"
    dice = np.random.default_rng(seed)
    weight = (dice.normal(size=(64, 64)) * shift).astype(np.float32)
    with np.errstate(over="ignore"):
        if exact:
            weight = np.clip(weight, -6e4, 6e4).astype(np.float16).astype(np.float32)
    onnx.save(product(weight), path)
    x = dice.normal(size=(1, 64)).astype(np.float32)
    before, size = run(path, x), path.stat().st_size
    saved = store_exact_halves(path)
    assert np.array_equal(before, run(path, x))
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert kinds == ({TensorProto.FLOAT16} if exact else {TensorProto.FLOAT})
    assert size - path.stat().st_size == saved
    assert (saved > 7000) == exact


def test_small_tensors_are_left_alone(tmp_path):
    onnx.save(product(np.ones((4, 4), np.float32)), tmp_path / "g.onnx")
    assert store_exact_halves(tmp_path / "g.onnx") == 0
