"""Where the acceptance run finds its bundles and images, or makes them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pscr_engine.bundle import Bundle

from .result import SkippedError

REFERENCE = Path(__file__).parents[2] / "tests" / "reference"
BACKBONES = ("resnet18", "resnet50")
_IMAGES = 128


@dataclass(frozen=True, slots=True)
class Place:
    """The acceptance run's files, and what the command line says of them.

    Args:
        folder: the working folder, kept between calls.
        bundles: those named on the command line, backbone → folder.
        seconds: about how long each single figure is measured.
        device: index of the GPU.
    """

    folder: Path
    bundles: dict[str, Path]
    seconds: float
    device: int = 0
    only: str = ""
    """The backbone that this process is about."""

    @property
    def backbones(self) -> tuple[str, ...]:
        return (self.only,) if self.only else tuple(self.bundles) or BACKBONES

    @property
    def name(self) -> str:
        return f"cuda:{self.device}"

    def checkpoint(self, backbone: str) -> Path:
        """Return the reference checkpoint, rebuilt from its description if need be."""
        path = self.folder / f"{backbone}.pt"
        if not path.exists():
            _require("torch")
            command = [sys.executable, str(REFERENCE / "make_reference_ckpt.py"), backbone, "--seed", "1", "--compact"]
            subprocess.run([*command, "--out", path], check=True, capture_output=True)
        return path

    def bundle(self, backbone: str) -> Bundle:
        """Return the reference bundle, with FP32 and FP16 graphs, exported if need be."""
        if backbone in self.bundles:
            return Bundle.open(self.bundles[backbone])
        path = self.folder / f"{backbone}.pscr"
        if not path.exists():
            _require("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime")
            from pscr_export.export import ExportConfig, export_bundle

            exemplars = REFERENCE / "images" / "exemplars.csv"
            export_bundle(ExportConfig(self.checkpoint(backbone), exemplars, path, precisions=("fp32", "fp16")))
        return Bundle.open(path)

    def images(self, suffix: str) -> list[Path]:
        """Return made-up images of 512×512 pixels: "jpg" (quality 90, 4:2:0) or "png"."""
        folder = self.folder / suffix
        if not folder.exists():
            from pscr_engine.synthetic import generate

            partial = self.folder / f".{suffix}"
            options: dict[str, Any] = {"quality": 90} if suffix == "jpg" else {}
            partial.mkdir(parents=True, exist_ok=True)
            for index, made in enumerate(generate(_IMAGES, seed=7)):
                made.image.save(partial / f"{index:03d}.{suffix}", **options)
            partial.rename(folder)
        return sorted(folder.glob(f"*.{suffix}"))

    @staticmethod
    def golden() -> dict[str, Any]:
        content: dict[str, Any] = json.loads((REFERENCE / "golden.json").read_text())
        return content

    @staticmethod
    def queries() -> list[str]:
        return [str(path) for path in sorted((REFERENCE / "images/queries").glob("q*"))]


def _require(*packages: str) -> None:
    from importlib.util import find_spec

    lacking = [name for name in packages if find_spec(name) is None]
    if lacking:
        raise SkippedError(f"{', '.join(lacking)} not installed, to make a bundle; name one with --bundle")
