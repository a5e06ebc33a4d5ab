"""`benchmarks.gpu_acceptance` on a pretended GPU: what it measures there means nothing, but it must run and judge."""

import json

import pytest

from pscr_engine.cuda.open import has_bindings
from tests.helpers.tiny import make_bundle

from .commands import PretendHost

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return PretendHost(tmp_path_factory.mktemp("host"), gpus=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    make_bundle(folder / "tiny.pscr", precisions=("fp32", "fp16"))
    return folder


def acceptance(host, place, *sections):
    outcome = host.run_module(
        "benchmarks.gpu_acceptance", *sections, "--bundle", f"tiny={place / 'tiny.pscr'}", "--folder", place / "work",
        "--out", place / "record.json", "--seconds", 0.01,
    )  # fmt: skip
    return outcome, json.loads((place / "record.json").read_text())


def test_every_section_runs_or_says_why_not(host, place):
    assert has_bindings()
    outcome, record = acceptance(host, place)
    sections = record["sections"]
    assert list(sections) == [
        "host", "decode", "kernels", "ceilings",
        "goldens tiny", "engines tiny", "rtx tiny", "whole tiny", "workers tiny", "settings tiny", "canary tiny",
        "authors tiny", "several tiny", "profiled tiny",
    ]  # fmt: skip
    assert all(section["finished"] for section in sections.values())
    failed = [check for section in sections.values() for check, (holds, _) in section["checks"].items() if not holds]
    # On the processor, where stages share two cores, none of the targets for overlap and speed means anything.
    assert all("alone" in name for name in failed), outcome.stdout
    assert outcome.returncode == bool(failed)
    for name in ("kernel ops: bit for bit", "kernel nops: bit for bit", "kernel rps: bit for bit", "score_std"):
        assert sections["kernels"]["checks"][name][0]
    assert sections["decode"]["checks"]["decode 4:2:0: as Pillow"] == [True, "{'max': 0, 'mean': 0.0}"]
    assert sections["decode"]["checks"]["decode CMYK: as Pillow"][1] == "left to Pillow"
    for engine in ("onnxruntime", "tensorrt", "tensorrt-rtx"):
        section = sections["rtx tiny" if "rtx" in engine else "engines tiny"]
        for precision in ("fp16", "fp32"):
            assert section["checks"][f"tiny {engine} {precision}: parity with ONNX Runtime FP32"][0]
    for recorded_by in ("us", "library"):
        assert sections["rtx tiny"]["figures"][f"tiny: CUDA graphs recorded by {recorded_by}, images/s"] > 0
    for backend in ("onnxruntime", "tensorrt-rtx"):
        for workers in (1, 2):
            assert sections["workers tiny"]["figures"][f"tiny {backend}, workers: {workers}"]["images/s"] > 0
    assert len(sections["settings tiny"]["figures"]["tiny fp16: images/s by settings and batch size"]) == 5
    assert sections["canary tiny"]["checks"]["every decoded image is the file's"][0]
    assert sections["canary tiny"]["figures"]["images compared"] == 128
    assert sections["canary tiny"]["figures"]["buffers filled with the canary"] == 64
    assert sections["whole tiny"]["figures"]["tiny jpg"]["images/s"] > 0
    assert sections["several tiny"]["figures"]["tiny"]["scaling"]["1"] == 1.0
    assert "reference" in sections["goldens tiny"]["skipped"]["tiny"]
    assert "GPU" in sections["authors tiny"]["skipped"]["authors"]
    page = (place / "record.md").read_text()
    assert page.startswith("# pretended GPU\n")
    assert "- authors tiny: authors: PyTorch can't use the GPU" in page


def test_it_goes_on_where_it_stopped_and_a_section_can_be_run_again(host, place):
    record = json.loads((place / "record.json").read_text())
    del record["sections"]["kernels"]
    (place / "record.json").write_text(json.dumps(record))
    outcome, record = acceptance(host, place)
    assert outcome.returncode == 0, outcome.stderr
    assert [line for line in outcome.stdout.splitlines() if line.endswith("...")] == ["kernels ..."]
    outcome, record = acceptance(host, place, "host")
    assert [line for line in outcome.stdout.splitlines() if line.endswith("...")] == ["host ..."]
    assert len(record["sections"]) == 14


def test_a_section_that_crashes_is_a_failed_check(host, place):
    outcome = host.run_module(
        "benchmarks.gpu_acceptance", "kernels", "--folder", place / "work", "--out", place / "crash.json",
        "--seconds", 0.01, PRETEND_LOSS="0:0",
    )  # fmt: skip
    assert outcome.returncode == 1
    (check,) = json.loads((place / "crash.json").read_text())["sections"]["kernels"]["checks"].items()
    assert check[0] == "the section itself"


def test_a_section_that_takes_too_long_leaves_what_it_has_and_is_run_again(host, place):
    command = (
        "benchmarks.gpu_acceptance", "decode", "ceilings", "--folder", place / "work", "--out", place / "slow.json",
        "--seconds", 5, "--minutes", 0.36,
    )  # fmt: skip
    outcome = host.run_module(*command)
    assert outcome.returncode == 1
    section = json.loads((place / "slow.json").read_text())["sections"]["decode"]
    assert not section["finished"]
    assert "decode 4:2:0: as Pillow" in section["checks"]
    assert "stopped after" in section["checks"]["the section itself"][1]
    assert "ceilings: not begun" in outcome.stdout


def test_without_a_gpu_it_is_one_line(tmp_path):
    outcome = PretendHost(tmp_path, gpus=0).run_module("benchmarks.gpu_acceptance")
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
