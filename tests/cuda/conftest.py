"""The real PyCUDA, built on a machine without a GPU."""

import fcntl
import os
import shutil
import sys
from pathlib import Path

import pytest

from . import build_pycuda

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pscr-engine-tests"


@pytest.fixture(scope="session")
def pycuda():
    """Return a folder with PyCUDA, which is built once and kept, since that takes minutes."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed: PyCUDA can't be built")
    folder = CACHE / f"pycuda-{build_pycuda.VERSION}-{sys.implementation.cache_tag}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "pycuda.lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        build_pycuda.main(folder)
    return folder
