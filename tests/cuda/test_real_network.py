"""ResNet-18 at full size through the whole path on a GPU, whose kernels and network the processor computes."""

import pyarrow.parquet as pq
import pytest

from pscr_engine.bundle import Bundle
from tests.conftest import REFERENCE

from .commands import PretendHost

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, checkpoint):
    from pscr_export.export import ExportConfig, export_bundle

    out = tmp_path_factory.mktemp("bundle") / "resnet18.pscr"
    exemplars = REFERENCE / "images" / "exemplars.csv"
    return export_bundle(ExportConfig(checkpoint("resnet18"), exemplars, out, precisions=("fp32", "fp16"))).path


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return PretendHost(tmp_path_factory.mktemp("host"))


def test_scores_are_the_processors_and_the_references(host, bundle, golden, tmp_path):
    queries = tmp_path / "queries.csv"
    expected = golden["models"]["resnet18"]["runs"]["ops"]["score"]
    queries.write_text("path\n" + "".join(f"{REFERENCE / 'images' / name}\n" for name in expected))
    found = {}
    for device, backend, precision in (
        ("cpu", "auto", "fp16"),
        ("cuda:0", "onnxruntime", "fp16"),
        ("cuda:0", "tensorrt", "fp16"),
        ("cuda:0", "onnxruntime", "fp32"),
    ):
        if backend == "tensorrt":
            compiled = host.run("compile", "--bundle", bundle, "--batch-size", 4, "--images", queries)
            assert compiled.returncode == 0, compiled.stderr
        out = tmp_path / f"{device[:4]}-{backend}-{precision}"
        outcome = host.run(
            "score", "--manifest", queries, "--bundle", bundle, "--out", out, "--devices", device,
            "--backend", backend, "--precision", precision, "--batch-size", 4,
        )  # fmt: skip
        assert outcome.returncode == 0, outcome.stderr
        found[device, backend, precision] = pq.read_table(out / "part-000000.parquet")["score"].to_pylist()
    low, high = Bundle.open(bundle).info.label_range
    for (device, backend, precision), scores in found.items():
        other = list(expected.values()) if precision == "fp32" else found["cpu", "auto", "fp16"]
        tolerance = 1e-4 if precision == "fp32" else 5e-4 * (high - low)
        assert scores == pytest.approx(other, abs=tolerance), (device, backend, precision)
        assert scores == pytest.approx(list(expected.values()), abs=5e-3 * (high - low))
