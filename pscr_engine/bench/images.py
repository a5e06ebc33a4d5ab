"""The images that a benchmark scores: those of a folder, or made-up ones of a stated size, format and quality."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import PscrError, UsageError, option
from ..manifests.image_files import files_below, is_image
from ..records import Pixels, Query
from ..stages.decode import DecodeOptions, decode
from ..stages.load import load_image

FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
_MADE_UP = 32
_TAKEN = 256
_DECODED = 32
_MAX_SIDE = 16_384


@dataclass(frozen=True, slots=True)
class BenchImages:
    """Encoded images, as files.

    Args:
        paths: of the files, absolute, at least one.
        facts: description of the images, for the record.
    """

    paths: Sequence[str]
    facts: dict[str, Any]

    def encoded(self) -> list[bytes]:
        """Read the files' content."""
        return [Path(path).read_bytes() for path in self.paths]

    def decoded(self) -> list[Pixels]:
        """Decode the first 32 of them to RGB, uint8 [H, W, 3].

        Raises:
            PscrError: one can't be decoded.
        """
        queries = [Query(0, path=path, data=Path(path).read_bytes()) for path in self.paths[:_DECODED]]
        for query in queries:
            decode(query, DecodeOptions())
        require_ok(queries)
        return [query.pixels for query in queries if query.pixels is not None]

    @classmethod
    def of_folder(cls, folder: Path) -> BenchImages:
        """Choose up to 256 images of a folder, spread evenly over its sorted names, less those that can't be decoded.

        Raises:
            UsageError: there are none.
        """
        try:
            names = sorted(filter(is_image, files_below(folder)))
        except OSError as error:
            raise UsageError(f"{option('--images')} {folder}: {error.strerror}; name a folder of images") from error
        if not names:
            raise UsageError(f"{option('--images')} {folder}: no image files in it")
        chosen = [names[int(index)] for index in np.linspace(0, len(names) - 1, min(_TAKEN, len(names)))]
        # Absolute: what is relative in a manifest starts from the manifest's folder, not from here.
        paths = [path for path in (str(folder.absolute() / name) for name in chosen) if _decodes(path)]
        if not paths:
            raise UsageError(f"{option('--images')} {folder}: none of the {len(chosen)} images tried can be decoded")
        kinds = Counter(os.path.splitext(path)[1].lower().lstrip(".") for path in paths)  # noqa: PTH122 - a name
        return cls(paths, {"folder": str(folder), "images": len(paths), "formats": dict(kinds), **_bytes(paths)})

    @classmethod
    def make(cls, folder: Path, size: tuple[int, int], kind: str, quality: int) -> BenchImages:
        """Write made-up images into `folder`.

        Args:
            folder: for the files.
            size: width and height in pixels.
            kind: one of FORMATS.
            quality: of JPEG and WebP, 1 to 100.

        Raises:
            UsageError: a size or a quality out of range.
        """
        width, height = size
        if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
            raise UsageError(f"{option('--size')} {width}x{height}: sides must be from 1 to {_MAX_SIDE}")
        if not 1 <= quality <= 100:
            raise UsageError(f"{option('--quality')} {quality}: must be from 1 to 100")
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number in range(_MADE_UP):
            path = folder.absolute() / f"{number:03d}.{kind}"
            path.write_bytes(encode(made_up(width, height, number), kind, quality))
            paths.append(str(path))
        facts: dict[str, Any] = {"made up": f"{width}x{height}", "format": kind, "images": len(paths)}
        if kind != "png":
            facts["quality"] = quality
        return cls(paths, {**facts, **_bytes(paths)})


def require_ok(queries: Sequence[Query]) -> None:
    """Raise PscrError if one of the queries has failed: to fail is fast, and the speed of failures is no figure."""
    if failed := next((query for query in queries if not query.ok), None):
        raise PscrError(f"{failed.path}: {failed.status.value} ({failed.error}); bench needs images that can be scored")


def made_up(width: int, height: int, seed: int) -> Pixels:
    """Generate an image with large shapes, edges, texture and grain, about as hard to compress as a photograph.

    Returns:
        uint8 [height, width, 3]; the same for the same arguments.
    """
    dice = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((4, 45.0), (16, 18.0), (64, 9.0)):
        coarse = dice.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            image[..., channel] += np.asarray(plane)
    for _ in range(8):
        top, left = dice.integers(0, height), dice.integers(0, width)
        tall, wide = dice.integers(1, height // 2 + 2), dice.integers(1, width // 2 + 2)
        image[top : top + tall, left : left + wide] += dice.normal(0, 25, 3)
    image += 128 + dice.normal(0, 5, (height, width, 1))
    return image.clip(0, 255).astype(np.uint8)


def encode(pixels: Pixels, kind: str, quality: int) -> bytes:
    """Encode an image, uint8 [H, W, 3], as the bytes of a file of one of FORMATS."""
    buffer = io.BytesIO()
    options = {} if kind == "png" else {"quality": quality}
    Image.fromarray(pixels).save(buffer, FORMATS[kind], **options)
    return buffer.getvalue()


def _decodes(path: str) -> bool:
    query = Query(0, location=path)
    load_image(query, DecodeOptions())
    return query.ok


def _bytes(paths: Sequence[str]) -> dict[str, int]:
    return {"bytes_per_image": round(sum(Path(path).stat().st_size for path in paths) / len(paths))}
