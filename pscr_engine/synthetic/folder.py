"""A folder of made-up images with the list that names them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..host import usable_cpus
from .generate import make_image

_JPEG_QUALITY = 92


def write_images(
    folder: Path, name: str, count: int, seed: int, made: Callable[[int], None] = lambda done: None
) -> Path:
    """Make `count` labelled images in a new folder, and a list of them there: path, mos. Every fourth is a PNG.

    Args:
        folder: made here.
        name: of the list, a CSV file.
        count: how many images.
        seed: see `generate`.
        made: is told how many images are done.

    Returns:
        The list's path.

    Raises:
        OSError: the folder is there already, or can't be written.
    """
    folder.mkdir()

    def write(index: int) -> tuple[str, float]:
        image = make_image(index, seed=seed)
        path = f"{index:04d}.png" if index % 4 == 3 else f"{index:04d}.jpg"
        image.image.save(folder / path, quality=_JPEG_QUALITY)
        return path, image.mos

    # NumPy and Pillow let other threads run while they compute.
    with (folder / name).open("w", newline="", encoding="utf-8") as file, ThreadPoolExecutor(usable_cpus()) as pool:
        writer = csv.writer(file)
        writer.writerow(["path", "mos"])
        for done, row in enumerate(pool.map(write, range(count)), start=1):
            writer.writerow(row)
            made(done)
    return folder / name
