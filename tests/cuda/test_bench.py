"""`pscr-engine bench` and its energy figures with pretended GPUs."""

import json
import subprocess

import pytest

from tests.helpers.tiny import make_bundle

from .commands import PretendHost

# 1 J between any two looks at the same card.
_NVML = """
#include <string.h>
static unsigned long long used[256];
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle) {
    unsigned char card = 0;
    for (const char *c = bus; *c; c++) card = 31 * card + *c;
    *handle = used + card;
    return strlen(bus) < 7;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *mj) {
    *mj = *(unsigned long long *)handle += 1000;
    return 0;
}
"""


@pytest.mark.slow
def test_bench_on_two_pretended_gpus(tmp_path):
    host = PretendHost(tmp_path / "host", gpus=2)
    (tmp_path / "nvml.c").write_text(_NVML)
    library = tmp_path / "host" / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "nvml.c", "-o", library], check=True)
    make_bundle(tmp_path / "model.pscr", precisions=("fp32", "fp16"))
    outcome = host.run(
        "bench", "--bundle", tmp_path / "model.pscr", "--out", tmp_path / "gpus.json", "--seconds", 0.05, "--rounds", 1,
        "--size", "64x64", "--batch-size", 4, "--devices", "cuda:0,cuda:1", "--backend", "onnxruntime",
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    record = json.loads((tmp_path / "gpus.json").read_text())
    assert record["host"]["gpus"] == {"cuda:0": "pretended GPU", "cuda:1": "pretended GPU"}
    assert record["engine"]["precision"] == "fp16"
    assert record["engine"]["latency_ms"]["p50"] > 0
    assert record["engine"]["memory"]["bandwidth_gb_per_second"] > 0
    assert record["engine"]["arithmetic"]["peak_gmac_per_second"] is None, "cuBLAS knows that there is no GPU"
    assert "can't be measured" in record["engine"]["arithmetic"]["how"]
    assert [run["devices"] for run in record["runs"]] == [["cuda:0"], ["cuda:0", "cuda:1"]]
    one, two = record["runs"]
    assert one["joules_per_image"] == pytest.approx(1 / one["rows"], abs=1e-4)
    assert two["joules_per_image"] == pytest.approx(2 / two["rows"], abs=1e-4)
