"""Check that the GPU's decoder returns each file's own pixels, in many batches, while the card is busy.

Buffers are filled with one value first, the canary, so that what is not written is seen (hardware decoders have
reported success for images that they had skipped).
"""

from __future__ import annotations

import io
from contextlib import closing

import numpy as np
from PIL import Image

from pscr_engine.backends.registry import create_backend
from pscr_engine.cuda.backend import CudaBackend
from pscr_engine.cuda.decoder import Decoded
from pscr_engine.cuda.decoding_check import TOLERANCE, largest_difference
from pscr_engine.cuda.slot import Slot, Wanted

from .place import Place
from .result import Result, SkippedError

_BATCH = 64
_REPEATS = 40
_CANARY = 0xCA


def run(place: Place, result: Result) -> None:
    """Decode batches of 64 while the engine works, and compare each image with Pillow's."""
    backbone = place.backbones[0]
    bundle = place.bundle(backbone)
    backend = create_backend(bundle, device=place.name, backend="onnxruntime")
    assert isinstance(backend, CudaBackend)
    with closing(backend), backend.gpu.current():
        decoder, gpu, engine = backend.decoder, backend.gpu, backend.engine
        if decoder is None:
            raise SkippedError("nvImageCodec does not work here")
        data = [path.read_bytes() for path in place.images("jpg")]
        expected = [np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in data]
        slot, stream = Slot(gpu, None, engine.batch_size, backend.shape, Wanted()), gpu.stream()
        pinned = gpu.pinned(max(each.nbytes for each in expected) * 2)
        canary = gpu.pinned(pinned.array.nbytes)
        canary.array[:] = _CANARY
        wrong: list[str] = []
        compared, filled, worst = 0, 0, 0.0
        kept: list[Decoded | None] = []
        for repeat in range(max(2, round(_REPEATS * min(1.0, place.seconds)))):
            for image in filter(None, kept):  # the next image in this memory is decoded over the canary
                gpu.copy_to_device(image.address, canary, image.nbytes, stream)
                filled += 1
            stream.synchronize()
            kept.clear()
            for _ in range(4):
                engine.enqueue(slot.engine_tensors)
            chosen = [(repeat * _BATCH + offset) % len(data) for offset in range(_BATCH)]
            encoded = [decoder.read(data[index]) for index in chosen]
            kept = decoder.decode([each for each in encoded if each is not None], stream.handle)
            for index, decoded in zip(chosen, kept, strict=True):
                if decoded is None:
                    wrong.append(f"batch {repeat}: image {index} was refused")
                    continue
                gpu.copy_to_host(pinned, decoded.address, decoded.nbytes, stream)
                stream.synchronize()
                off = largest_difference(decoded.pixels_in(pinned.array), expected[index])
                compared, worst = compared + 1, max(worst, off)
                if off > TOLERANCE:
                    wrong.append(f"batch {repeat}: image {index} is {off:.0f} levels off in a block")
        for synchronised in (stream, *engine.streams):
            synchronised.synchronize()
        kept.clear()
        slot.free()
        pinned.free()
        canary.free()
    result.figures["images compared"] = compared
    result.figures["buffers filled with the canary"] = filled
    result.figures["largest difference of a block, levels"] = round(worst, 2)
    result.check("every decoded image is the file's", not wrong, "; ".join(wrong[:5]) or f"{compared} images")
