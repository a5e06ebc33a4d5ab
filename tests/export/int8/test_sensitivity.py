import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pscr_export.graph import export_graph
from pscr_export.int8.calibration import Calibration
from pscr_export.int8.graph import WeightedNode, operators, quantised, weighted_nodes
from pscr_export.int8.pixels import PixelNetwork
from pscr_export.int8.rounding import rounded_together, with_layers_of
from pscr_export.int8.sensitivity import Sensitivity, error_left, left_in_float, sensitivities
from torch import nn

from pscr_engine.bundle import Exemplars

from ..small import small_checkpoint
from .quantised_graph import exact_scores

C, P, D = 8, 32, 2


class Branches(nn.Module):
    """Two convolutions side by side: what reads their sum comes from both."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 1)

    def forward(self, x):
        return torch.relu(self.one(x) + self.two(x))


def trunk() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), Branches(), nn.MaxPool2d(2), nn.Conv2d(12, C, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Estimate the sensitivities of a small network whose last convolution has channels of very different size."""
    torch.manual_seed(0)
    checkpoint = small_checkpoint(C, trunk())
    # One large weight per output channel, which the others are rounded by.
    last = checkpoint.trunk[4]
    last.weight.data[:, 0, 0, 0] = 30 * last.weight.data.abs().amax()
    network = PixelNetwork(checkpoint.trunk, checkpoint, patches=D).eval()
    path = tmp_path_factory.mktemp("graph") / "float.onnx"
    export_graph(network, P, path, None)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (D, P, P, 3), dtype=np.uint8) // np.uint8(rng.integers(1, 5)) for _ in range(24)]
    exemplars = Exemplars(*(rng.normal(size=shape).astype(np.float32) for shape in ((5, C), (5,), (5, C))))
    ranges = Calibration(path, operators(onnx.load(path)), images, exemplars).ranges("min-max")
    model = onnx.load(path)
    steps = []
    rounded = rounded_together(network, images, seven_bits=False)
    estimates = sensitivities(network, rounded, model, ranges, images, exemplars, lambda *step: steps.append(step))
    assert len(steps) == len(images)

    def rounded_but_for(in_float):
        chosen = [node.name in in_float for node in weighted_nodes(model)]
        mixed = with_layers_of(rounded, network, chosen, images[0][:1])
        export_graph(mixed, P, path.with_name("mixed.onnx"), None)
        return onnx.load(path.with_name("mixed.onnx"))

    return model, ranges, images, exemplars, estimates, rounded_but_for


@pytest.mark.medium
def test_the_graphs_operators_are_found_in_order(found):
    model, *_, estimates, _ = found
    first, one, two, last = [each.node for each in estimates]
    assert [node.weights for node in (one, two, last)] == [12 * 12 * 9, 12 * 12, 12 * C * 9]
    assert [node.reads_pixels for node in (first, one, two, last)] == [True, False, False, False]
    assert [node.activated for node in (first, one, two, last)] == [True, False, False, True]
    assert last.sources == {one.name, two.name}
    assert one.sources == two.sources == {first.name}
    assert estimates[1].multiply_adds == 12 * 12 * 9 * 16 * 16
    assert [each.node for each in estimates] == weighted_nodes(model)


@pytest.mark.medium
def test_estimates_are_what_rounding_does(found):
    model, ranges, images, exemplars, estimates, rounded_but_for = found
    exact = exact_scores(model, images, exemplars)

    def error(in_float):
        graph = quantised(rounded_but_for(in_float), ranges, in_float)
        return np.var(exact_scores(graph, images, exemplars) - exact)

    names = [each.node.name for each in estimates]
    assert error(()) == pytest.approx(error_left(estimates, set()), rel=0.6)
    # The convolution with the large weights is the one that matters.
    assert max(estimates, key=lambda each: each.weights).node.name == names[-1]
    assert left_in_float(estimates, 0.5, 0.9) == [names[-1]]
    assert error(names[-1:]) < 0.5 * error(())
    assert error(names[:1]) > 0.5 * error(())


@pytest.mark.medium
def test_nothing_is_rounded_where_all_is_in_float(found):
    model, ranges, *_, estimates, _ = found
    names = [each.node.name for each in estimates]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    left = quantised(copy, ranges, names[:-1])
    # What stands between operators in float is in float, too: only the last operator's input is rounded.
    (last,) = (node for node in left.graph.node if node.name == names[-1])
    producers = {name: node for node in left.graph.node for name in node.output}
    rounded = {node.input[0] for node in left.graph.node if node.op_type == "QuantizeLinear"}
    assert producers[last.input[0]].op_type == "DequantizeLinear"
    before_last = [name for node in left.graph.node if node.name in names[:-1] for name in node.output]
    assert before_last
    assert not rounded & set(before_last)


def some(name, sources=(), *, macs=1.0, weights=0.0, inputs=0.0, outputs=0.0):
    node = WeightedNode(name, True, 1, "", "", False, False, False, frozenset(sources))
    return Sensitivity(node, macs, weights, inputs, outputs)


def test_the_most_error_for_the_fewest_multiply_adds_goes_first():
    operators = [some("cheap", macs=1, weights=1), some("dear", macs=10, weights=5), some("good", macs=1)]
    assert left_in_float(operators, 0.9, 1.0) == ["cheap"]
    assert left_in_float(operators, 0.1, 1.0) == ["cheap", "dear"]
    assert left_in_float(operators, 0.1, 0.5) == ["cheap"], "no more than the given share of multiply-adds"


def test_rounded_inputs_are_spared_by_leaving_what_computes_them():
    operators = [some("one"), some("two", ["one"], inputs=1)]
    assert error_left(operators, {"two"}) == 1
    assert left_in_float(operators, 0.5, 1.0) == ["one", "two"]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_more_in_float_never_leaves_more_error(data):
    count = data.draw(st.integers(1, 5))
    value = st.floats(0, 10)
    operators = [
        some(
            str(i),
            data.draw(st.sets(st.sampled_from([str(j) for j in range(i)]))) if i else (),
            macs=data.draw(st.floats(0.1, 10)),
            weights=data.draw(value),
            inputs=data.draw(value) if i else 0.0,
            outputs=data.draw(value),
        )
        for i in range(count)
    ]
    share, most = data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1))
    names = left_in_float(operators, share, most)
    total = sum(each.multiply_adds for each in operators)
    spent = sum(each.multiply_adds for each in operators if each.node.name in names)
    assert spent <= most * total * (1 + 1e-9)
    left, all_of_it = error_left(operators, set(names)), error_left(operators, set())
    assert left <= all_of_it * (1 + 1e-9)
    if most == 1:
        assert left <= share * all_of_it + 1e-6
