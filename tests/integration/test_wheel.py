"""The wheel, installed with the extra `cpu` alone, scores a bundle; PyTorch and ONNX are not there."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pscr_engine.models import DEFAULT_MODEL

from ..helpers.images import encoded, pixels
from ..helpers.shipped import remove_models, ship
from ..helpers.tiny import expected_score, make_bundle

ROOT = Path(__file__).parents[2]


def pip(python, *arguments):
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=ROOT)


def source_with_model(folder):
    """Copy what the wheel is built from, with one small model to ship, whatever the checkout ships."""
    for name in ("pscr_engine", "export", "training"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    models = folder / "pscr_engine" / "models"
    remove_models(models)
    bundle = ship(models)
    (bundle.path / "plans").mkdir()
    (bundle.path / "plans" / "of-this-host.plan").write_bytes(b"x")
    return folder


@pytest.mark.slow
def test_a_wheel_with_the_extra_cpu_scores(tmp_path):
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", tmp_path, source_with_model(tmp_path / "source"))
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "pscr_engine",
        "pscr_export",
        "pscr_training",
        wheel.name.split("-py3")[0] + ".dist-info",
    }
    assert {f"{package}/py.typed" for package in ("pscr_engine", "pscr_export", "pscr_training")} <= set(names)

    templates = {"page.html.j2", "macros.html.j2", "page.css", "page.js"}
    assert {f"pscr_engine/report/templates/{name}" for name in templates} <= set(names)

    shipped = {name.removeprefix("pscr_engine/models/") for name in names if f"/models/{DEFAULT_MODEL}" in name}
    contents = ("bundle.json", "exemplars.parquet", "exemplars.safetensors", "scorer.fp32.onnx")
    assert shipped == {
        f"{DEFAULT_MODEL}.json",
        f"{DEFAULT_MODEL}.md",
        *(f"{DEFAULT_MODEL}.pscr/{name}" for name in contents),
    }

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip(python, "install", "--constraint", ROOT / "constraints.txt", f"{wheel}[cpu]")
    installed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert not {line.split()[0].lower() for line in installed.splitlines()} & {"torch", "onnx", "timm", "torchvision"}

    bundle = make_bundle(tmp_path / "model.pscr")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(pixels(50, 60)))

    def command(*arguments):
        executable = tmp_path / "venv" / "bin" / "pscr-engine"
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run([executable, *arguments], cwd=tmp_path, env=alone, capture_output=True, text=True)

    assert command("models").stdout.startswith(f"{DEFAULT_MODEL} (the default)")
    demo = command("demo", "--images", "4")
    assert demo.returncode == 0, demo.stderr
    assert demo.stdout.endswith("report: none, it needs jinja2: pip install 'pscr-engine[report]'\n")

    scored = command("score", "--manifest", "images")
    assert scored.returncode == 0, scored.stderr
    (row,) = pq.read_table(tmp_path / "scores" / "part-000000.parquet").to_pylist()
    assert row["score"] == pytest.approx(expected_score(bundle, pixels(50, 60)), abs=1e-5)

    assert "all digests match" in command("inspect").stdout
    refused = command("report")
    assert refused.stderr == "error: an HTML page needs jinja2: pip install 'pscr-engine[report]'\n"
    assert command("select", "--top", "1").returncode == 0
    assert "no   export checkpoints: pip install 'pscr-engine[cpu,export]'" in command("doctor").stdout
    for arguments, extras in (
        (["export", "--ckpt", "x.pt", "--exemplars", "e.csv"], "cpu,export"),
        (["demo", "--train"], "cpu,export,train"),
    ):
        refused = command(*arguments)
        assert refused.returncode == 1
        assert refused.stderr.startswith("error: ")
        assert f"pip install -c constraints.txt 'pscr-engine[{extras}]'" in refused.stderr
        assert refused.stderr.count("\n") == 1
