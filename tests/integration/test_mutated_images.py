"""Thousands of damaged images of every format: as many rows, no crash, no hang, flat memory."""

import io
import os
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle

IMAGES = 5000
STATUSES = {"ok", "undecodable", "too_large", "too_small", "unreadable"}


def originals():
    """Yield each format in several kinds: progressive, palette, grey, alpha, animated, variously compressed."""
    picture = Image.fromarray(pixels(60, 80, 1))
    alpha = picture.convert("RGBA")
    alpha.putalpha(128)
    kinds = [
        ("JPEG", picture, {"quality": 85}),
        ("JPEG", picture, {"progressive": True}),
        ("JPEG", picture.convert("L"), {}),
        ("JPEG", picture.convert("CMYK"), {}),
        ("PNG", picture, {}),
        ("PNG", alpha, {}),
        ("PNG", picture.convert("P"), {}),
        ("PNG", picture.convert("1"), {}),
        ("WEBP", picture, {"quality": 70}),
        ("WEBP", alpha, {"lossless": True}),
        ("GIF", picture, {}),
        ("GIF", picture, {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}),
        ("TIFF", picture, {}),
        ("TIFF", picture, {"compression": "tiff_lzw"}),
        ("TIFF", picture, {"compression": "jpeg"}),
        ("TIFF", picture, {"compression": "tiff_adobe_deflate"}),
        ("BMP", picture, {}),
        ("BMP", picture.convert("P"), {}),
    ]
    for kind, image, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        yield buffer.getvalue()


def mutated(data, dice):
    data = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        # Headers matter more than pixels.
        at = dice.randrange(min(len(data), 200) if dice.random() < 0.5 else len(data))
        length = dice.randrange(1, 1 + max(1, len(data) // 8))
        match dice.choice(["flip", "byte", "cut", "drop", "double", "swap", "zero"]):
            case "flip":
                data[at] ^= 1 << dice.randrange(8)
            case "byte":
                data[at] = dice.randrange(256)
            case "cut":
                del data[at + 1 :]
            case "drop":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + length]
            case "swap":
                other = dice.randrange(len(data))
                data[at : at + length], data[other : other + length] = (
                    data[other : other + length],
                    data[at : at + length],
                )
            case "zero":
                data[at : at + length] = bytes(len(data[at : at + length]))
        if not data:
            break
    return bytes(data)


def run(folder, manifest, out):
    command = [sys.executable, "-m", "pscr_engine", "score", "--manifest", manifest, "--out", out]
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen([*command, "--max-pixels", "4000000"], cwd=folder, stdout=stderr, stderr=stderr)
        _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)  # waited for already, though not by Popen
    assert process.returncode == 0, (folder / "stderr").read_text()
    assert "Traceback" not in (folder / "stderr").read_text()
    rows = pa.concat_tables(pq.read_table(part) for part in sorted((folder / out).glob("part-*"))).to_pylist()
    return rows, usage.ru_maxrss / 1024


@pytest.mark.slow
def test_mutated_images_are_rows(tmp_path):
    make_bundle(tmp_path / "model.pscr")
    dice, whole = random.Random(6), list(originals())
    images = [mutated(whole[index % len(whole)], dice) for index in range(IMAGES - 1)]
    images.append(encoded(pixels(60, 80, 1)))  # an honest one, last: the run is still sound
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), tmp_path / "m.parquet", row_group_size=500)
    pq.write_table(
        pa.table({"image": pa.array(images * 2, pa.binary())}), tmp_path / "twice.parquet", row_group_size=500
    )
    rows, peak = run(tmp_path, "m.parquet", "once")
    assert [row["row"] for row in rows] == list(range(IMAGES))
    assert {row["status"] for row in rows} <= STATUSES
    for row in rows:
        assert (row["score"] is not None) == (row["status"] == "ok") == (row["error"] is None)
    counts = {status: sum(row["status"] == status for row in rows) for status in STATUSES}
    assert counts["ok"] > IMAGES // 10  # damage that a decoder forgives
    assert counts["undecodable"] > IMAGES // 10
    assert rows[-1]["status"] == "ok"
    again, peak_of_twice = run(tmp_path, "twice.parquet", "twice")
    assert [(row["status"], row["score"]) for row in again] == [(row["status"], row["score"]) for row in rows] * 2
    assert peak_of_twice < 1.15 * peak
