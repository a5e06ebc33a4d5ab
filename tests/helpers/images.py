"""Make the image files that tests need, good and bad."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Make a smooth random picture, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(array: np.ndarray, kind: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Make a valid PNG of a few megabytes at most whose pixels would take gigabytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    compressor = zlib.compressobj(9)
    row = b"\0" * (1 + 3 * width)
    data = b"".join(compressor.compress(row) for _ in range(200)) + compressor.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write_troublesome(folder: Path) -> dict[str, str]:
    """Write files of the kinds that trouble real collections, and return name → expected status."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = pixels(300, 260)
    jpeg = encoded(picture, "JPEG", quality=90)
    (folder / "directory.png").mkdir()
    (folder / "empty.png").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "text.png").write_text("this is not a picture\n")
    (folder / "one.png").write_bytes(encoded(pixels(1, 1)))
    Image.fromarray(picture).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray((picture[..., 0].astype(np.uint16) << 8) | 17).save(folder / "sixteen.png")
    frames = [Image.fromarray(pixels(300, 260, seed)) for seed in (1, 2, 3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(picture).convert("RGBA").save(folder / "rgba.webp")
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "good.png").write_bytes(encoded(picture))
    return {
        "missing.png": "missing",
        "directory.png": "unreadable",
        "empty.png": "undecodable",
        "truncated.jpg": "undecodable",
        "text.png": "undecodable",
        "one.png": "ok",
        "cmyk.jpg": "ok",
        "sixteen.png": "ok",
        "animated.gif": "ok",
        "rgba.webp": "ok",
        "bomb.png": "too_large",
        "good.png": "ok",
    }
