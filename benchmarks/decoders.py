"""Compare decoders of JPEG: whether their pixels equal Pillow's, and how long they take.

python -m benchmarks.decoders [FOLDER]     of JPEG files; else real ones beside the project, else made-up ones

Decoders that aren't installed are left out: pip install -c constraints.txt simplejpeg opencv-python-headless
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from pscr_engine.host import usable_cpus
from pscr_engine.records import Pixels, Query
from pscr_engine.stages.decode import DecodeOptions, decode

from .common import jpeg_files, record, spread, versions

ROUNDS, MOST = 5, 600
METHOD = (
    "Files in memory, decoded to RGB arrays. 'stage' is the decode stage of a run: Pillow reads the header, simplejpeg "
    "the pixels. In each round all decode all files in turn, on one thread, and on as many as there are cores; medians "
    "of five rounds after one that warms up. 'equal': share of the files whose pixels equal Pillow's in every byte."
)


def pillow(data: bytes) -> Pixels:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def stage(data: bytes) -> Pixels:
    query = Query(0, data=data)
    decode(query, DecodeOptions())
    assert query.pixels is not None, query.error
    return query.pixels


def others() -> dict[str, Callable[[bytes], Any]]:
    found: dict[str, Callable[[bytes], Any]] = {}
    try:
        import simplejpeg

        found["simplejpeg"] = partial(simplejpeg.decode_jpeg, colorspace="RGB", fastdct=False, fastupsample=False)
    except ImportError:
        pass
    try:
        import cv2

        found["opencv"] = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except ImportError:
        pass
    try:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        found["torchvision"] = lambda data: decode_jpeg(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB
        ).permute(1, 2, 0)
    except ImportError:
        pass
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="of JPEG files")
    folder = parser.parse_args().folder
    files = jpeg_files()[0] if folder is None else sorted(folder.glob("*.jpg"))
    if not files:
        parser.error(f"{folder}: has no *.jpg files")
    files = files[:: max(1, len(files) // MOST)]
    data = [file.read_bytes() for file in files]
    ways: dict[str, Callable[[bytes], Any]] = {"pillow": pillow, "stage": stage, **others()}
    equal = {
        name: float(np.mean([np.array_equal(np.asarray(way(each)), pillow(each)) for each in data]))
        for name, way in ways.items()
    }
    rates: dict[str, dict[int, list[float]]] = {name: {1: [], usable_cpus(): []} for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            for threads, measured in rates[name].items():
                with ThreadPoolExecutor(threads) as pool:
                    start = perf_counter()
                    for _ in pool.map(way, data):
                        pass
                    if number:
                        measured.append(len(data) / (perf_counter() - start))
    figures = {
        name: {
            "equal": equal[name],
            "images_per_second": {f"{threads} threads": spread(each) for threads, each in rates[name].items()},
            "times as fast as pillow": {
                f"{threads} threads": spread([a / b for a, b in zip(each, rates["pillow"][threads], strict=True)])
                for threads, each in rates[name].items()
            },
        }
        for name in ways
    }
    packages = versions("pillow", "simplejpeg", "opencv-python-headless", "torchvision")
    about = {"images": len(data), "mean_bytes": round(sum(map(len, data)) / len(data)), "packages": packages}
    print(record("decoders-cpu", METHOD, {**about, "decoders": figures}).read_text())


if __name__ == "__main__":
    main()
