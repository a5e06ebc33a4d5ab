"""Fixtures for all tests: bundles, reference data, and the real command line with and without a shipped model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pscr_engine.bundle import Bundle

from .helpers.shipped import copy_package, search_path, ship
from .helpers.tiny import make_bundle

REFERENCE = Path(__file__).parent / "reference"

# An object store on loopback, for whichever test asks for one.
pytest_plugins = ["tests.helpers.store_fixtures"]


# What an engine's speed is must decide no test, and to measure it takes seconds.
os.environ["PSCR_ENGINE_CPU_BACKEND"] = "onnxruntime"
# OpenMP's threads spin while they wait. Where two processes share the cores, PyTorch then takes two to eight times as
# long as with threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


# What asks for one of these starts processes, servers or PyTorch.
_MEDIUM = {"bucket", "checkpoint", "cli", "cli_with_model", "cli_without_model", "command", "proxy", "s3", "start"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts whole commands as medium, and begin with the files that have slow tests.

    The last process at work should not be at the longest file.
    """
    for item in items:
        whole_commands = item.path.parent.name == "integration" or _MEDIUM & set(getattr(item, "fixturenames", ()))
        if whole_commands and not item.get_closest_marker("slow"):
            item.add_marker("medium")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def measuring_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let "auto" measure which engine is faster, as users do."""
    monkeypatch.delenv("PSCR_ENGINE_CPU_BACKEND")


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "tiny.pscr")


@pytest.fixture(scope="session")
def golden() -> dict:
    return json.loads((REFERENCE / "golden.json").read_text())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Rebuild the reference checkpoint of a backbone, once per session."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(backbone: str, *flags: str) -> Path:
        path = folder / f"{backbone}{''.join(flags)}.pt"
        if not path.exists():
            command = [sys.executable, str(REFERENCE / "make_reference_ckpt.py"), backbone, "--seed", "1", "--compact"]
            subprocess.run([*command, *flags, "--out", path], check=True, capture_output=True)
        return path

    return make


@pytest.fixture(scope="session")
def reference_bundle(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[..., Path]
) -> Callable[[str, str], Bundle]:
    """Export a reference checkpoint with a sampling, once per session."""
    folder = tmp_path_factory.mktemp("bundles")

    def make(backbone: str, sampling: str = "ops") -> Bundle:
        from pscr_export.export import ExportConfig, export_bundle

        path = folder / f"{backbone}-{sampling}.pscr"
        if path.exists():
            return Bundle.open(path)
        return export_bundle(
            ExportConfig(checkpoint(backbone), REFERENCE / "images" / "exemplars.csv", path, sampling=sampling)
        )

    return make


CommandLine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """Run the real command line in a process of its own, in the test's folder."""
    return _command_line(tmp_path, {})


@pytest.fixture(scope="session")
def package_with_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the package that ships one model, a made-up one."""
    folder = tmp_path_factory.mktemp("package")
    ship(copy_package(folder))
    return folder


@pytest.fixture
def cli_with_model(tmp_path: Path, package_with_model: Path) -> CommandLine:
    """Run the command line of the copy of the package that ships a made-up model."""
    return _command_line(tmp_path, search_path(package_with_model))


@pytest.fixture
def cli_without_model(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Run the command line of a copy of the package that ships no model."""
    folder = tmp_path_factory.mktemp("package")
    copy_package(folder)
    return _command_line(tmp_path, search_path(folder))


@pytest.fixture
def models_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder in which this process looks for shipped models."""
    folder = tmp_path_factory.mktemp("models")
    monkeypatch.setattr("pscr_engine.models.shipped.FOLDER", folder)
    return folder


def _command_line(folder: Path, environment: dict[str, str]) -> CommandLine:
    def run(*arguments: object, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pscr_engine", *map(str, arguments)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )

    return run
