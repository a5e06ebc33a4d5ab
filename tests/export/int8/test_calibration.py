import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from pscr_export.int8.calibration import METHODS, Calibration

from pscr_engine.bundle import Exemplars

EXEMPLARS = Exemplars(np.zeros((1, 2), np.float32), np.zeros(1, np.float32), np.zeros((1, 2), np.float32))


@pytest.fixture(scope="module")
def calibration(tmp_path_factory):
    """Calibrate a graph of one activation, whose values are the bytes less 100."""
    path = tmp_path_factory.mktemp("graph") / "float.onnx"
    kind = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["patches"], ["value"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["value", "offset"], ["moved"]),
        helper.make_node("Add", ["exemplar_hidden", "exemplar_hidden"], ["h"]),
        helper.make_node("Add", ["exemplar_labels", "exemplar_labels"], ["l"]),
    ]
    inputs = [
        kind("patches", TensorProto.UINT8, [None, 64, 64, 3]),
        kind("exemplar_hidden", TensorProto.FLOAT, [1, 2]),
        kind("exemplar_labels", TensorProto.FLOAT, [1]),
    ]
    outputs = [kind("moved", TensorProto.FLOAT, None), kind("h", TensorProto.FLOAT, None)]
    outputs.append(kind("l", TensorProto.FLOAT, None))
    offset = onnx.numpy_helper.from_array(np.float32(-100), "offset")
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, [offset]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    random = np.random.default_rng(0)
    batches = [np.clip(random.normal(100, spread, (4, 64, 64, 3)), 0, 255).astype(np.uint8) for spread in (5, 5, 20)]
    batches[2][0, 0, 0] = 255
    return Calibration(path, ["Add"], batches, EXEMPLARS), np.concatenate(batches).astype(np.float32) - 100


@pytest.mark.parametrize("method", METHODS)
def test_ranges_lie_around_the_values(calibration, method):
    found, values = calibration
    low, high = (float(x) for x in found.ranges(method)["moved"].range_value)
    inside = ((values >= low) & (values <= high)).mean()
    assert low < 0 < high
    assert inside > 0.98
    if method == "min-max":
        assert (low, high) == (values.min(), values.max())
    if method == "min-max × 1.5":
        assert (low, high) == (values.min() * 1.5, values.max() * 1.5)
    if method in ("squared error", "percentile 99.99", "entropy"):
        assert high < values.max()  # the single pixel far out is cut off


def test_percentiles_are_the_values_percentiles(calibration):
    found, values = calibration
    low, high = found.ranges("percentile 99.99")["moved"].range_value
    assert low == pytest.approx(np.quantile(values, 0.00005), abs=1)
    assert high == pytest.approx(np.quantile(values, 0.99995), abs=1)
