"""The kit for a GPU host: made, carried part by part, unpacked in a clean environment, run on the pretended driver."""

import json
import os
import shutil
import struct
import subprocess
import sys

import pytest

from benchmarks.gpu_kit.fatbin import keep_only
from benchmarks.gpu_kit.first_contact import STEPS, receive
from benchmarks.gpu_kit.pack import compress, make_parts
from pscr_engine.errors import PscrError
from tests.cuda.commands import PretendHost
from tests.helpers.tiny import make_bundle

# What the host has, beside PyTorch.
HOST = ("numpy", "pillow", "pyarrow", "safetensors", "click", "rich", "flatbuffers", "protobuf", "sympy", "packaging")


@pytest.fixture
def archives(tmp_path):
    made = {}
    for name, size in (("project", 300_000), ("gpu", 700_000)):
        folder = tmp_path / name / "site"
        folder.mkdir(parents=True)
        (folder / f"{name}.bin").write_bytes(os.urandom(size))
        made[name] = compress(tmp_path / name, tmp_path / f"{name}.tar.xz", 0)
    return made


def test_parts_are_no_larger_than_they_may_be_and_come_together_again(archives, tmp_path):
    largest = 2**18 + 500_000
    parts = make_parts(archives, tmp_path / "kit", {"commit": "abc", "python": "3.12"}, largest)
    assert len(parts) == 3
    for part in parts:
        assert sum(file.stat().st_size for file in part.iterdir()) <= largest
    work, seen = tmp_path / "work", []
    for number, part in enumerate(parts):  # one call each: what came before is gone but for `work`
        arrived = tmp_path / f"call-{number}" / part.name
        shutil.copytree(part, arrived)
        _, there = receive(arrived, work)
        seen.append(sorted(there))
    assert seen[-1] == ["gpu", "project"]
    assert seen[0] != seen[-1]
    for name in archives:
        original = (tmp_path / name / "site" / f"{name}.bin").read_bytes()
        assert (work / "site" / f"{name}.bin").read_bytes() == original
    assert not list((work / "pieces").iterdir())


def test_a_damaged_piece_is_named_with_its_part(archives, tmp_path):
    part, *_ = make_parts(archives, tmp_path / "kit", {"commit": "", "python": ""})
    piece = next(part.glob("gpu.tar.xz.*"))
    piece.write_bytes(piece.read_bytes()[:-1] + b"\0")
    with pytest.raises(SystemExit, match=r"gpu.tar.xz.01of01 is damaged: carry part 1 again"):
        receive(part, tmp_path / "work")


def test_a_script_without_its_kit_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"is no part of a kit \(no kit.json\); make gpu-kit makes one"):
        receive(tmp_path, tmp_path / "work")


def entry(kind, architecture, code):
    header = bytearray(64)
    struct.pack_into("<HHIQ", header, 0, kind, 0, 64, len(code))
    struct.pack_into("<I", header, 16, len(code))
    struct.pack_into("<I", header, 28, architecture)
    return bytes(header) + code


def test_machine_code_of_other_gpus_is_blanked(tmp_path):
    entries = entry(2, 80, b"a" * 80) + entry(2, 90, b"b" * 40) + entry(1, 90, b"c" * 16)
    fatbin = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries
    (tmp_path / "code.bin").write_bytes(fatbin)
    (tmp_path / "lib.s").write_text('.section .nv_fatbin,"a"\n.incbin "code.bin"\n')
    library = tmp_path / "lib.so"
    subprocess.run(["cc", "-shared", "-o", library, "lib.s"], cwd=tmp_path, check=True)
    assert keep_only(library, 90) == (40, 96)
    content = library.read_bytes()
    assert b"b" * 40 in content
    assert b"a" * 80 not in content
    assert b"c" * 16 not in content
    with pytest.raises(PscrError, match=r"has no code for compute capability 12\.0"):
        keep_only(library, 120)
    with pytest.raises(PscrError, match="has no device code"):
        keep_only(_plain(tmp_path), 90)


def _plain(folder):
    (folder / "plain.c").write_text("int x;\n")
    subprocess.run(["cc", "-shared", "-o", folder / "plain.so", folder / "plain.c"], check=True)
    return folder / "plain.so"


@pytest.mark.slow
def test_the_kit_runs_in_a_clean_environment(tmp_path):
    """Run the kit with this Python in place of the host's and without PyTorch: steps that need PyTorch say so.

    What the other sections do is tested with the acceptance of GPUs; here, that the kit's packages are found and used.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    kit = tmp_path / "kit"
    command = [sys.executable, "-m", "benchmarks.gpu_kit", kit, "--python", version, "--preset", "0"]
    made = subprocess.run([*command, "--part-mib", "100"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    parts = sorted(kit.iterdir())
    listed = json.loads((parts[0] / "kit.json").read_text())["archives"]
    assert set(listed) == {"project", "gpu", "tensorrt-rtx"}

    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    constraints = os.path.abspath("constraints.txt")
    python = environment / "bin/python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--constraint", constraints]
    subprocess.run([*pip, *HOST], check=True)

    host = PretendHost(tmp_path / "host")
    bundle = make_bundle(tmp_path / "tiny.pscr", precisions=("fp32", "fp16")).path
    out = tmp_path / "out"
    steps = ["imports TensorRT for RTX", "host", "kernels", "decode", "rtx"]
    outcome = subprocess.run(
        [python, parts[0] / "first_contact.py", "--work", tmp_path / "work", "--out", out, "--seconds", "0.01",
         "--patience", "8", "--minutes", "40",
         "--bundle", f"tiny={bundle}", *steps],
        env=host.environment, capture_output=True, text=True,
    )  # fmt: skip
    state = json.loads((out / "first-contact.json").read_text())
    for name in steps:
        step = state["steps"][name]
        assert step["why"].startswith("exit code"), (name, step)
    assert state["steps"]["imports TensorRT for RTX"]["output"].startswith("TensorRT for RTX 1.")
    record = json.loads((out / "record.json").read_text())
    assert set(record["sections"]) >= {"host", "kernels", "decode", "rtx tiny"}
    failed = {
        check: seen
        for section in record["sections"].values()
        for check, (holds, seen) in section["checks"].items()
        if not holds
    }
    assert not failed, (failed, outcome.stdout)
    versions = record["machine"]["versions"]
    assert "onnxruntime-gpu" in versions, "the kit's packages were not used"


def test_every_step_has_a_limit_and_a_section(tmp_path):
    from benchmarks.gpu_acceptance import ONCE, PER_BACKBONE

    assert len({step.name for step in STEPS}) == len(STEPS)
    for step in STEPS:
        assert 0 < step.seconds <= 570
        if "benchmarks.gpu_acceptance" in step.command:
            assert step.command[2] in (*ONCE, *PER_BACKBONE)
