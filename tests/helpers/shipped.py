"""A made-up shipped model: a tiny bundle with facts and a card, in a folder or in a copy of the package."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pscr_engine
from pscr_engine.bundle import Bundle
from pscr_engine.models import DEFAULT_MODEL

from .tiny import make_bundle


def facts_of(bundle: Bundle, name: str = DEFAULT_MODEL) -> dict:
    """Make up the facts of a shipped model."""
    figures = {"images": 60, "srcc": [0.81, 0.7, 0.9], "plcc": [0.83, 0.75, 0.91]}
    return {
        "format": "pscr-model",
        "format_version": 1,
        "name": name,
        "bundle": bundle.digest,
        "summary": "A made-up model for tests.",
        "trunk": "averages of colours",
        "data": "no images at all",
        "split": "none",
        "figures": {"fp32": {**figures, "rmse": [0.5, 0.4, 0.6]}, "int8": figures},
        "licence": {"data": "made up", "weights": "Apache-2.0"},
        "rebuild": "make nothing",
    }


def ship(folder: Path, name: str = DEFAULT_MODEL, **bundle: object) -> Bundle:
    """Put a model into `folder`, as if it were shipped."""
    made = make_bundle(folder / f"{name}.pscr", **bundle)
    (folder / f"{name}.json").write_text(json.dumps(facts_of(made, name)))
    (folder / f"{name}.md").write_text(f"# {name}\n\nA made-up model.\n")
    return made


def remove_models(folder: Path) -> None:
    """Remove the models that are shipped in `folder`."""
    for path in folder.glob("*.pscr"):
        shutil.rmtree(path)
        for suffix in (".json", ".md"):
            path.with_suffix(suffix).unlink(missing_ok=True)


def copy_package(target: Path) -> Path:
    """Copy pscr_engine, without the models that it ships, for a process of its own. Returns the models' folder."""
    ignored = shutil.ignore_patterns("__pycache__")
    copied = shutil.copytree(Path(pscr_engine.__file__).parent, target / "pscr_engine", ignore=ignored)
    remove_models(copied / "models")
    return copied / "models"


def search_path(*folders: Path) -> dict[str, str]:
    """Return the environment in which Python looks for packages in `folders` first."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([*map(str, folders), *([before] if before else [])])}
