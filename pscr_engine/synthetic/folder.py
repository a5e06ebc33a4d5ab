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
    """Write `count` made-up images, every fourth a PNG, the others JPEG, and a list of path and mos to a new folder.

    Args:
        folder: the folder to make.
        name: file name of the list, a CSV file.
        count: how many images.
        seed: image i depends on (seed, i) only.
        made: called after each image with the number of images done.

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
