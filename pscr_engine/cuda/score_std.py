"""Compute `score_std`, the deviation over exemplars, on the device, so that one number per image comes back."""

from __future__ import annotations

from .device import Device, Stream
from .kernels.load import fatbin

_LANES = 128


def scratch_bytes(images: int) -> int:
    """Return the bytes of scratch memory that `ScoreStd.launch` needs for so many images."""
    return images * _LANES * 2 * 8


class ScoreStd:
    """Launches the kernels that compute `score_std`.

    Args:
        device: the GPU, current in this thread.
    """

    def __init__(self, device: Device) -> None:
        image = fatbin("spread")
        self._add_up = device.kernel(image, "add_up_spread", "PPPi")
        self._finish = device.kernel(image, "finish_spread", "PPiii")

    def launch(
        self, scores: int, means: int, scratch: int, out: int, *, images: int, exemplars: int, stream: Stream
    ) -> None:
        """Begin to compute population standard deviations.

        Args:
            scores: address of float32 [images, exemplars].
            means: address of float32 [images], their means.
            scratch: address of `scratch_bytes(images)` bytes.
            out: address of float32 [images].
            images: how many.
            exemplars: M.
            stream: what it runs on.
        """
        self._add_up.launch((1, images, 1), _LANES, stream, scores, means, scratch, exemplars)
        self._finish.launch((-(-images // _LANES), 1, 1), _LANES, stream, scratch, out, images, _LANES, exemplars)
