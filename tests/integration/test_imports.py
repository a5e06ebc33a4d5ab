"""Scoring never loads PyTorch, nor the export or training side."""

import json
import os
import subprocess
import sys

import pytest

from pscr_engine.models import DEFAULT_MODEL

from ..helpers.images import encoded, pixels
from ..helpers.shipped import search_path

FORBIDDEN = {"torch", "torchvision", "timm", "onnx", "pscr_export", "pscr_training"}
# A script, and what needs packages for GPUs.
NOT_IMPORTED = (
    "__main__",
    "pycuda_device",
    "bindings_device",
    "tensorrt.builder",
    "tensorrt.engine",
    "tensorrt.logger",
    "tensorrt.rtx",
)


def loaded(code, cwd, environment=None):
    code += "\nimport sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    environment = {**os.environ, **(environment or {})}
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=True
    )
    return set(json.loads(outcome.stdout.splitlines()[-1]))


def test_importing_the_engine(tmp_path):
    modules = loaded(
        "import pscr_engine, pkgutil, importlib\n"
        "for module in pkgutil.walk_packages(pscr_engine.__path__, 'pscr_engine.'):\n"
        f"    if not module.name.endswith({NOT_IMPORTED}): importlib.import_module(module.name)",
        tmp_path,
    )
    assert "pscr_engine" in modules
    assert not FORBIDDEN & modules


def test_running_score(tmp_path, tiny):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(pixels(40, 40)))
    modules = loaded(
        "import sys\nfrom pscr_engine.cli import cli\n"
        "cli.main(['score', '--manifest', 'images', '--bundle', 'tiny.pscr'], standalone_mode=False)",
        tmp_path,
    )
    assert "onnxruntime" in modules
    assert not FORBIDDEN & modules


@pytest.mark.parametrize("arguments", [["demo", "--images", "3"], ["models"], ["models", DEFAULT_MODEL, "--json"]])
def test_running_demo_and_models(tmp_path, package_with_model, arguments):
    code = f"from pscr_engine.cli import cli\ncli.main({arguments!r}, standalone_mode=False)"
    modules = loaded(code, tmp_path, search_path(package_with_model))
    assert "pscr_engine" in modules
    assert not FORBIDDEN & modules


def test_listing_the_commands_loads_none(tmp_path):
    modules = loaded("from pscr_engine.cli import cli\ncli.main(['--help'], standalone_mode=False)", tmp_path)
    assert not (FORBIDDEN | {"onnxruntime"}) & modules


def test_export_help_needs_no_pytorch(tmp_path):
    modules = loaded("from pscr_engine.cli import cli\ncli.main(['export', '--help'], standalone_mode=False)", tmp_path)
    assert not (FORBIDDEN - {"pscr_export"}) & modules


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_score_does_not_load_pandas(tmp_path, tiny, devices):
    """Check it in the command's own processes: Arrow loads pandas at the first list that it is given."""
    pytest.importorskip("pandas")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(pixels(40, 40)))
    modules = imported_by(tmp_path, "score", "images", "--bundle", tiny.path, "--devices", devices)
    assert "pyarrow.lib" in modules
    assert not any(name.startswith("pandas.") for name in modules)  # that of an attempt is "pandas"


def test_who_asks_for_pandas_gets_it(tmp_path):
    """Check it beside PyTorch, whose compiler looks for pandas when timm loads it."""
    pytest.importorskip("pandas")
    code = "import pyarrow\nfrom pscr_engine.host import keep_pandas_out\nkeep_pandas_out()\n"
    assert "pandas" not in loaded(code + "pyarrow.array([1])", tmp_path)
    assert {"pandas", "torch"} <= loaded(code + "import torch._dynamo, pandas", tmp_path)


def test_help_loads_neither_numpy_nor_arrow(tmp_path):
    modules = imported_by(tmp_path, "--help")
    assert "click" in modules
    assert not {"numpy", "pyarrow"} & modules


def imported_by(cwd, *arguments):
    outcome = subprocess.run(
        [sys.executable, "-m", "pscr_engine", *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    times = [line for line in outcome.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in times}
