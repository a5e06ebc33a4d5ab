"""Run whole commands on the pretend driver, in processes of their own, workers included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from . import pretend_driver

ROOT = Path(__file__).parent.parent.parent
FAKE_TENSORRT = ROOT / "tests/backends/tensorrt/fake"
# Python imports `sitecustomize` by itself, in every process.
_SITE = """
from tests.cuda import host_in_place_of_gpu
host_in_place_of_gpu.install()
"""


class PretendHost:
    """A host with GPUs, as far as commands can tell.

    Args:
        folder: for the driver, its start-up module and the caches.
        gpus: how many GPUs it shows.
    """

    def __init__(self, folder: Path, gpus: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pretend_driver.build(None, folder, devices=gpus)
        (folder / "sitecustomize.py").write_text(_SITE)
        self.environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(folder),
            "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT), str(FAKE_TENSORRT))),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def start(self, *arguments: object, module: str = "pscr_engine", **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.Popen(
            command, env={**self.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run_module("pscr_engine", *arguments, **environment)

    def run_module(self, module: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, module=module, **environment)
        out, err = process.communicate(timeout=720)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
