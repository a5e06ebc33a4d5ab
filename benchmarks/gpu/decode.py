"""Compare decoding on the GPU with Pillow: what comes out, and how fast."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from pscr_engine.cuda import backend
from pscr_engine.cuda.decoder import Decoded, ImageDecoder
from pscr_engine.cuda.open import open_device
from pscr_engine.errors import PscrError
from pscr_engine.host import usable_cpus
from pscr_engine.records import Query
from pscr_engine.stages.decode import DecodeOptions, decode

from .clock import rate
from .place import Place
from .result import Result, SkippedError

# Levels, allowed since decoders round inverse cosine transforms differently, and a colour is made of three.
_LARGEST, _MEAN = 8, 0.6
_FOR_PILLOW = ("CMYK",)


def run(place: Place, result: Result) -> None:
    """Compare several kinds of JPEG, with smooth chroma upsampling (as used) and without; measure images/s."""
    device = open_device(place.device)
    kinds = _kinds(Image.open(place.images("png")[0]).convert("RGB"))
    with device.current():
        decoder = backend._decoder(device, usable_cpus())
        if decoder is None:
            raise SkippedError("nvImageCodec does not work here")
        stream = device.stream()
        differences: dict[str, Any] = {"smooth": _differences(decoder, kinds, stream)}
        with suppress(PscrError):
            differences["not smooth"] = _differences(
                ImageDecoder(place.device, usable_cpus(), smooth_chroma=False), kinds, stream
            )
        for name, seen in differences["smooth"].items():
            left = isinstance(seen, str)
            holds = name in _FOR_PILLOW if left else (seen["max"] <= _LARGEST and seen["mean"] <= _MEAN)
            result.check(f"decode {name}: as Pillow", holds, str(seen))
        result.figures["difference to Pillow"] = differences
        result.figures["hardware JPEG engine"] = _hardware_engine(place.device, kinds["4:2:0"])
        data = [path.read_bytes() for path in place.images("jpg")]
        rates = {}
        for size in (16, 64, 128):
            encoded = [decoder.read(data[index % len(data)]) for index in range(size)]
            batch = [each for each in encoded if each is not None]
            assert len(batch) == size
            assert all(decoder.decode(batch, stream.handle)), "the decoder refuses ordinary JPEGs"
            rates[str(size)] = round(
                rate(partial(decoder.decode, batch, stream.handle), stream.synchronize, size, place.seconds)
            )
    result.figures["GPU, images/s by batch size"] = rates
    result.figures["processor, images/s"] = {suffix: round(processor_rate(place, suffix)) for suffix in ("jpg", "png")}
    result.figures["processor threads"] = usable_cpus()


def processor_rate(place: Place, suffix: str) -> float:
    """Measure images per second of the decode stage on the processor: bytes in memory, all cores."""
    data = [path.read_bytes() for path in place.images(suffix)]

    def one(row: int) -> None:
        query = Query(row, data=data[row % len(data)])
        decode(query, DecodeOptions())
        assert query.ok, query.error

    with ThreadPoolExecutor(usable_cpus()) as pool:
        return rate(lambda: list(pool.map(one, range(len(data)))), lambda: None, len(data), place.seconds)


def _kinds(photo: Image.Image) -> dict[str, bytes]:
    def jpeg(image: Image.Image, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, "JPEG", **{"quality": 90, **options})
        return file.getvalue()

    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: ignored, as in the reference
    return {
        "4:2:0": jpeg(photo),
        "4:2:2": jpeg(photo, subsampling=1),
        "4:4:4": jpeg(photo, subsampling=0),
        "quality 30": jpeg(photo, quality=30),
        "odd size": jpeg(photo.crop((3, 5, 394, 338))),
        "progressive": jpeg(photo, progressive=True),
        "grey": jpeg(photo.convert("L")),
        "CMYK": jpeg(photo.convert("CMYK")),
        "EXIF rotation": jpeg(photo.crop((0, 0, 400, 300)), exif=exif),
    }


def _differences(decoder: ImageDecoder, kinds: dict[str, bytes], stream: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, data in kinds.items():
        encoded = decoder.read(data)
        (image,) = decoder.decode([encoded], stream.handle) if encoded is not None else (None,)
        stream.synchronize()
        if image is None:
            out[name] = "left to Pillow" if encoded is None else "refused by the decoder"
            continue
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)
        difference = np.abs(_pixels(image).astype(np.int16) - expected)
        out[name] = {"max": int(difference.max()), "mean": round(float(difference.mean()), 4)}
    return out


def _pixels(image: Decoded) -> np.ndarray:
    owner = image.owner.cpu() if "DEVICE" in image.owner.buffer_kind.name else image.owner
    return np.asarray(owner)


def _hardware_engine(device: int, data: bytes) -> str:
    """Tell whether the card's JPEG engine decodes by itself: "yes", or "no" with the error, if any."""
    from nvidia import nvimgcodec

    try:
        kind = nvimgcodec.BackendKind.HW_GPU_ONLY
        decoder = nvimgcodec.Decoder(device_id=device, backends=[nvimgcodec.Backend(kind)])
        (image,) = decoder.decode([nvimgcodec.CodeStream(data)])
    except Exception as error:  # noqa: BLE001 - what it raises is the answer
        return f"no ({error})"[:200]
    return "no" if image is None else "yes"
