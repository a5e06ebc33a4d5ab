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


@pytest.mark.skipif(int8_saturates(), reason="without VNNI, ONNX Runtime adds products of bytes in 16 bits")
def test_a_transformer_is_quantised_from_its_pixels_on(tmp_path):
    torch.manual_seed(0)
    checkpoint = small_checkpoint(C, Transformer())
    network = PixelNetwork(checkpoint.trunk, checkpoint, patches=D).eval()
    path = tmp_path / "float.onnx"
    export_graph(network, P, path, None)
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (3 * D, P, P, 3), dtype=np.uint8)
    cache = Exemplars(*(rng.normal(size=shape).astype(np.float32) for shape in ((2, C), (2,), (2, C))))
    ranges = Calibration(path, operators(onnx.load(path)), [patches], cache).ranges("min-max")
    model = quantised(onnx.load(path), ranges)
    assert not any(node.op_type in ("Cast", "Sub") for node in model.graph.node)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"patches": patches, "exemplar_hidden": cache.hidden, "exemplar_labels": cache.labels}
    (found,) = session.run(["features"], feed)
    with torch.inference_mode():
        expected = network.features(torch.from_numpy(patches)).numpy()
    assert found == pytest.approx(expected, abs=0.03 * float(np.ptp(expected)))
