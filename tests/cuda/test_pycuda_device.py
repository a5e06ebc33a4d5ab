"""The device layer with the real PyCUDA, which is built here, on a pretend driver. It does not show races."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pscr_engine.cuda.open import open_device
from pscr_engine.errors import MissingDependencyError

from . import build_pycuda

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pscr-engine-tests"


@pytest.fixture(scope="module")
def pycuda():
    """A folder with PyCUDA; kept, since the build takes minutes."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed: PyCUDA can't be built")
    folder = CACHE / f"pycuda-{build_pycuda.VERSION}-{sys.implementation.cache_tag}"
    CACHE.mkdir(parents=True, exist_ok=True)
    build_pycuda.main(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("check", ["patches", "threads", "refusals", "no_driver"])
def test_on_a_pretend_driver(pycuda, tmp_path, check):
    outcome = subprocess.run(
        [sys.executable, "-m", "tests.cuda.on_pretend_driver", check, pycuda, tmp_path],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == f"passed {check}\n"


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_without_pycuda_it_is_one_line():
    with pytest.raises(MissingDependencyError, match=r"scoring on a GPU needs pycuda: pip install .*\[gpu\]"):
        open_device(0)
