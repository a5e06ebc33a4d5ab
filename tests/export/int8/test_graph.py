import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pscr_export.graph import export_graph
from pscr_export.int8.calibration import Calibration
from pscr_export.int8.graph import operators, quantised
from pscr_export.int8.pixels import PixelNetwork
from torch import nn

from pscr_engine.bundle import Exemplars
from pscr_engine.host import int8_saturates

from ..small import small_checkpoint

C, P, D = 8, 32, 2


class Transformer(nn.Module):
    """Its class token is expanded to the number of patches, which the graph asks of the pixels themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, C, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, C))
        self.norm, self.mlp = nn.LayerNorm(C), nn.Linear(C, C)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1)
        return (tokens + self.mlp(self.norm(tokens))).mean(1)


@pytest.fixture
def session_options():
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


@pytest.mark.medium
def test_a_transformer_is_quantised_from_its_pixels_on(tmp_path, session_options):
    torch.manual_seed(0)
    checkpoint = small_checkpoint(C, Transformer())
    network = PixelNetwork(checkpoint.trunk, checkpoint, patches=D).eval()
    path = tmp_path / "float.onnx"
    export_graph(network, P, path, None)
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (3 * D, P, P, 3), dtype=np.uint8)
    cache = Exemplars(*(rng.normal(size=shape).astype(np.float32) for shape in ((2, C), (2,), (2, C))))
    ranges = Calibration(path, operators(onnx.load(path)), [patches], cache).ranges("min-max")
    # Without VNNI, ONNX Runtime adds products of bytes in 16 bits.
    model = quantised(onnx.load(path), ranges, seven_bits=int8_saturates())
    assert not any(node.op_type in ("Cast", "Sub") for node in model.graph.node)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
    )
    feed = {"patches": patches, "exemplar_hidden": cache.hidden, "exemplar_labels": cache.labels}
    (found,) = session.run(["features"], feed)
    with torch.inference_mode():
        expected = network.features(torch.from_numpy(patches)).numpy()
    assert found == pytest.approx(expected, abs=0.03 * float(np.ptp(expected)))


@pytest.mark.medium
def test_sums_of_weights_in_seven_bits_never_overflow(tmp_path, session_options):
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, C, 8, 8), nn.ReLU(), nn.Conv2d(C, C, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for convolution in (trunk[0], trunk[2]):  # the largest sums: all weights as large as any, all of one sign
        nn.init.constant_(convolution.weight, 0.01)
    checkpoint = small_checkpoint(C, trunk)
    network = PixelNetwork(checkpoint.trunk, checkpoint, patches=D).eval()
    path = tmp_path / "float.onnx"
    export_graph(network, P, path, None)
    patches = np.full((D, P, P, 3), 255, np.uint8)
    cache = Exemplars(*(np.ones(shape, np.float32) for shape in ((2, C), (2,), (2, C))))
    ranges = Calibration(path, operators(onnx.load(path)), [patches], cache).ranges("min-max")
    model = quantised(onnx.load(path), ranges, seven_bits=True)
    weights = [
        onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.data_type == onnx.TensorProto.INT8
    ]
    assert len([each for each in weights if each.ndim == 4]) == 2
    assert max(int(abs(each.astype(int)).max()) for each in weights if each.ndim > 0) == 64
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
    )
    feed = {"patches": patches, "exemplar_hidden": cache.hidden, "exemplar_labels": cache.labels}
    (found,) = session.run(["features"], feed)
    with torch.inference_mode():
        expected = network.features(torch.from_numpy(patches)).numpy()
    assert found == pytest.approx(expected, rel=0.02, abs=0.02)
