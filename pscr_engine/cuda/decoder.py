"""Decode JPEGs with nvImageCodec, many per call, into the GPU's memory; without a GPU, into the host's."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from numpy.lib.stride_tricks import as_strided
from PIL import Image

from ..errors import BackendError, MissingDependencyError, one_line
from ..records import Pixels
from .libraries import FOR_DECODING, load_libraries

# Decoders on the GPU and Pillow agree on JPEGs in YCbCr or grey; other colours are converted to RGB in many ways.
_CODEC, _CHANNELS, _BITS = "jpeg", (1, 3), 8
_COLOURS = ("SYCC", "GRAY")
_APP0, _APP14, _FRAMES = 0xE0, 0xEE, (0xC0, 0xC1, 0xC2)
_FULL_BATCH = 256
_END_OF_IMAGE, _TRAILER_BYTES = b"\xff\xd9", 64


class Encoded(NamedTuple):
    """An image whose header has been read.

    Args:
        stream: nvImageCodec's `CodeStream`, which keeps the file's bytes.
        height, width: in pixels.
    """

    stream: Any
    height: int
    width: int


class Decoded(NamedTuple):
    """A decoded image, uint8 [height, width, 3], RGB.

    Args:
        address: of its first byte.
        pitch: bytes from row to row.
        height, width: in pixels.
        owner: keeps the memory; hold it until all reads are done.
    """

    address: int
    pitch: int
    height: int
    width: int
    owner: Any

    @property
    def nbytes(self) -> int:
        """Count the bytes from the first to the last one of the image, padding between rows included."""
        return (self.height - 1) * self.pitch + 3 * self.width

    def pixels_in(self, memory: Pixels) -> Pixels:
        """View a copy of its bytes as an image, uint8 [height, width, 3].

        Args:
            memory: uint8; its first `nbytes` bytes are the image's.
        """
        shape, strides = (self.height, self.width, 3), (self.pitch, 3, 1)
        return as_strided(memory, shape, strides, writeable=False)


class ImageDecoder:
    """Decodes whole batches of JPEGs in the way of Pillow: no EXIF rotation, smooth chroma upsampling.

    Args:
        device: index of the GPU; None to decode on the processor, into the host's memory.
        threads: processor threads it may use; 0 for one per core.
        smooth_chroma: whether colours between samples are interpolated, as by Pillow, or repeated.
        load_hint: share of a batch that the hardware JPEG engine takes, 0 to 1, the rest being decoded by the GPU's
            processors; None for nvImageCodec's own choice.

    Raises:
        MissingDependencyError: nvImageCodec is not installed.
        BackendError: nvImageCodec does not start here.
    """

    def __init__(
        self, device: int | None = None, threads: int = 0, *, smooth_chroma: bool = True, load_hint: float | None = None
    ) -> None:
        if device is not None:
            load_libraries(FOR_DECODING)
        try:
            with _without_chatter():
                from nvidia import nvimgcodec
        except ImportError as error:
            raise MissingDependencyError("nvidia-nvimgcodec-cu13", "decoding on a GPU", "gpu") from error
        self._codec = nvimgcodec
        kinds = nvimgcodec.BackendKind
        used = (
            (kinds.CPU_ONLY,)
            if device is None
            else (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)  # in the order in which they are tried
        )
        try:
            self._decoder = nvimgcodec.Decoder(
                device_id=nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY if device is None else device,
                max_num_cpu_threads=threads,
                backends=[
                    nvimgcodec.Backend(kind)
                    if load_hint is None or kind != kinds.HW_GPU_ONLY
                    else nvimgcodec.Backend(kind, load_hint)
                    for kind in used
                ],
                options=f":fancy_upsampling={int(smooth_chroma)}",
            )
        except Exception as error:
            raise BackendError(f"nvImageCodec does not start: {one_line(error, 200)}") from error
        self._params = nvimgcodec.DecodeParams(
            apply_exif_orientation=False,
            color_spec=nvimgcodec.ColorSpec.SRGB,
            allow_any_depth=False,
            sample_format=nvimgcodec.SampleFormat.I_RGB,
        )

    def read(self, data: bytes) -> Encoded | None:
        """Read the header of an encoded image; return None if it is one for other decoders."""
        # Pillow refuses a JPEG whose end is missing; decoders on the GPU may fill up the missing part.
        if not data.startswith(b"\xff\xd8") or _END_OF_IMAGE not in data[-_TRAILER_BYTES:]:
            return None
        with suppress(Exception):  # a broken header: Pillow will say what is wrong with it
            stream = self._codec.CodeStream(data)
            if (
                stream.codec_name == _CODEC
                and stream.num_channels in _CHANNELS
                and stream.precision == _BITS
                and stream.color_spec.name in _COLOURS
                and (stream.num_channels == 1 or _is_ycbcr(data))
            ):
                return Encoded(stream, int(stream.height), int(stream.width))
        return None

    def probe(self) -> None:
        """Decode a full batch of small images, to prove that decoding works here.

        The batch is full since nvImageCodec sets the hardware engine up for batches as large as the first: after a
        first batch of one image, the engine would take only one image of each batch.

        Raises:
            BackendError: it does not: a library is missing, or doesn't fit this driver.
        """
        file = io.BytesIO()
        Image.new("RGB", (64, 64)).save(file, "JPEG")
        encoded = self.read(file.getvalue())
        if encoded is None or None in self.decode([encoded] * _FULL_BATCH):
            raise BackendError("nvImageCodec decodes no JPEG here; is nvidia-nvjpeg installed for this CUDA?")

    def decode(self, images: Sequence[Encoded], stream: int = 0) -> list[Decoded | None]:
        """Decode a batch; whatever runs on `stream` later, or waits for `stream`, sees the images complete.

        Args:
            images: results of `read`.
            stream: CUstream as an integer.

        Returns:
            One entry per image; None for an image that can't be decoded.
        """
        if not images:
            return []
        decoded = self._decoder.decode([image.stream for image in images], params=self._params, cuda_stream=stream)
        return [None if image is None else _described(image) for image in decoded]


def _is_ycbcr(data: bytes) -> bool:
    """Tell whether a JPEG of three channels is YCbCr by libjpeg's rules; nvImageCodec calls RGB ones YCbCr, too."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4])
        content = data[start + 4 : start + 2 + length]
        if marker == _APP0 and content.startswith(b"JFIF\0"):
            return True
        if marker == _APP14 and content.startswith(b"Adobe"):
            return content[11:12] == b"\1"
        if marker in _FRAMES:  # precision, height, width, how many components; then three bytes for each
            return [content[6], content[9], content[12]] == [1, 2, 3]
        start += 2 + length
    return False


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep off stderr what the library's C code prints about codecs that are neither installed nor needed."""
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:
        stderr = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _described(image: Any) -> Decoded:
    on_device = "DEVICE" in image.buffer_kind.name
    interface = image.__cuda_array_interface__ if on_device else image.__array_interface__
    height, width, channels = interface["shape"]
    pitch, pixel, byte = interface["strides"] or (width * channels, channels, 1)
    assert (channels, pixel, byte) == (3, 3, 1), "what I_RGB stands for"
    return Decoded(int(interface["data"][0]), int(pitch), int(height), int(width), image)
