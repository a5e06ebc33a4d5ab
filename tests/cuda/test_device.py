"""The device layer with the real PyCUDA, which is built here, and the real cuda.bindings, on a pretend driver.

It does not show races.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pscr_engine.cuda import open as opening
from pscr_engine.errors import MissingDependencyError

CHECKS = ["patches", "threads", "refusals", "no_driver"]


def on_pretend_driver(module, check, folder, *pycuda):
    """Run a check in a process of its own."""
    outcome = subprocess.run(
        [sys.executable, "-m", f"tests.cuda.{module}", check, folder, *pycuda],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=360,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == f"passed {check}\n"
    return outcome.stderr


@pytest.mark.medium
@pytest.mark.parametrize("check", CHECKS)
def test_bindings(tmp_path, check):
    if check == "no_driver" and shutil.which("nvidia-smi") is not None:
        pytest.skip("this machine has a driver")
    on_pretend_driver("on_pretend_driver", check, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_pycuda(pycuda, tmp_path, check):
    on_pretend_driver("on_pretend_driver", check, tmp_path, pycuda)


def test_without_either_it_is_one_line(monkeypatch):
    monkeypatch.setattr(opening, "has_pycuda", lambda: False)
    monkeypatch.setattr(opening, "has_bindings", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"scoring on a GPU needs pycuda .*: pip install .*\[gpu\]"):
        opening.open_device(0)
