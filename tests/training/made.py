"""Small labelled sets for tests: an image's brightness is its label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.images import pixels


def labelled_table(folder: Path, count: int = 24, size: int = 70) -> Path:
    """Write `labels.csv` with columns path, mos, prompt and part, and its images; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(5)
    lines = ["path,mos,prompt,part"]
    for index in range(count):
        level = dice.uniform(-90, 90)
        image = np.clip(pixels(size, size + index % 7, index).astype(float) * 0.2 + 100 + level, 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{index}.png")
        part = ("train", "train", "train", "test", "val")[index % 5]
        lines.append(f"{index}.png,{2.5 + level / 45:.3f},prompt {index // 3},{part}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"
