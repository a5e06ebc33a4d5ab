"""The buffers of one micro-batch on the device, allocated once and used for one micro-batch after another."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..sampling import Sampling
from .device import Device, DeviceBuffer
from .engine import Shape, Tensors
from .sampler import DeviceSampler
from .score_std import ScoreStd, scratch_bytes


class Wanted(NamedTuple):
    """Which results come back to the host besides score and score_std."""

    features: bool = False
    exemplar_scores: bool = False


class Results(NamedTuple):
    """Results on the host, float32 [B], [B], [B, C] and [B, M]: views of the slot's pinned memory."""

    score: NDArray[np.float32]
    score_std: NDArray[np.float32]
    features: NDArray[np.float32] | None
    exemplar_scores: NDArray[np.float32] | None


class Slot:
    """The buffers of one micro-batch, with the stream and the events that keep its steps in order.

    Args:
        device: current in this thread.
        sampling: how patches are taken on the device; None if they all come from the host.
        rows: images at most.
        shape: sizes of the engine's tensors.
        wanted: which results come back.
        lane: which of the engine's lanes computes it.

    Raises:
        DeviceMemoryError: the device has too little memory; what had been allocated is freed.
    """

    def __init__(
        self, device: Device, sampling: Sampling | None, rows: int, shape: Shape, wanted: Wanted, lane: int = 0
    ) -> None:
        self.rows, self.shape, self.wanted, self.lane = rows, shape, wanted, lane
        self._device = device
        self._buffers: list[DeviceBuffer] = []
        self.sampler: DeviceSampler | None = None
        try:
            self._allocate(sampling)
        except BaseException:
            self.free()
            raise
        self.stream = device.stream()
        # Reached when the patches are in the slot, the scores are computed, the results are on the host.
        self.ready, self.scored, self.back = device.event(), device.event(), device.event()
        self.held: list[Any] = []
        """Images that are read on `stream`; only to be freed once it has been synchronised.

        Freeing gives their memory to the decoder's next images, and nvJPEG's hardware engine writes these without
        heeding the order of the stream (pytorch/vision#9606): the kernel would read another image's pixels.
        """

    def _allocate(self, sampling: Sampling | None) -> None:
        rows, shape = self.rows, self.shape
        self.row_bytes = Tensors(shape.image_bytes, 4, 4 * shape.exemplars, 4 * shape.feature_size)
        self.engine_tensors = Tensors(*(self._buffer(rows * nbytes) for nbytes in self.row_bytes))
        self._std = self._buffer(rows * 4)
        self._scratch = self._buffer(scratch_bytes(rows))
        self._gathered: Tensors | None = None
        C, M = shape.feature_size * self.wanted.features, shape.exemplars * self.wanted.exemplar_scores
        self._host = self._device.pinned(rows * 4 * (2 + C + M))
        if sampling is not None:
            self.sampler = DeviceSampler(self._device, sampling, rows)

    def _buffer(self, nbytes: int) -> int:
        self._buffers.append(self._device.allocate(nbytes))
        return self._buffers[-1].address

    @property
    def gathered(self) -> Tensors:
        """Return buffers for the outputs of several batches, one after another; allocated when first needed."""
        if self._gathered is None:
            _, *outputs = self.row_bytes
            self._gathered = Tensors(0, *(self._buffer(self.rows * nbytes) for nbytes in outputs))
        return self._gathered

    def read_back(self, outputs: Tensors, images: int, score_std: ScoreStd) -> None:
        """Begin, on `stream`, to compute `score_std` and to copy the wanted results to the host; then record `back`."""
        M, C = self.shape.exemplars, self.shape.feature_size
        score_std.launch(
            outputs.exemplar_scores,
            outputs.score,
            self._scratch,
            self._std,
            images=images,
            exemplars=M,
            stream=self.stream,
        )
        sources = [(outputs.score, 1), (self._std, 1)]
        sources += [(outputs.features, C)] if self.wanted.features else []
        sources += [(outputs.exemplar_scores, M)] if self.wanted.exemplar_scores else []
        start = 0
        for address, width in sources:
            self._device.copy_to_host(self._host, address, 4 * width * images, self.stream, start)
            start += 4 * width * self.rows
        self.back.record(self.stream)

    def results(self, images: int) -> Results:
        """View the results of the last `read_back`, once `back` is reached; they are valid until the next one."""
        rows, floats = self.rows, self._host.array.view(np.float32)
        C, M = self.shape.feature_size, self.shape.exemplars
        features = exemplar_scores = None
        end = 2 * rows
        if self.wanted.features:
            features = floats[end : end + rows * C].reshape(rows, C)[:images]
            end += rows * C
        if self.wanted.exemplar_scores:
            exemplar_scores = floats[end : end + rows * M].reshape(rows, M)[:images]
        return Results(floats[:images], floats[rows : rows + images], features, exemplar_scores)

    def free(self) -> None:
        """Give all memory back."""
        for buffer in self._buffers:
            buffer.free()
        self._buffers.clear()
        if hasattr(self, "_host"):
            self._host.free()
        if self.sampler is not None:
            self.sampler.free()
