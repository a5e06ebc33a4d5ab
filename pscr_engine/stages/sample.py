"""Sample: from decoded images to one array of patches."""

from __future__ import annotations

from collections import deque

import numpy as np

from ..records import MicroBatch, Pixels, Query, Status
from ..sampling import Sampling, TooSmallError


def sample(query: Query, out: Pixels, sampling: Sampling, max_pixels: int) -> bool:
    """Write the patches of one decoded query, uint8 [D, P, P, 3], to `out`; return whether it has any."""
    if not query.ok or query.pixels is None:
        return False
    try:
        sampling.sample(query.pixels, out, digest=query.digest, max_pixels=max_pixels)
    except TooSmallError as error:
        query.fail(Status.TOO_SMALL, str(error))
        return False
    query.pixels = None
    return True


class Sampler:
    """Takes the patches of micro-batches, into buffers that are used again.

    Several threads may sample at once, each its own micro-batch.

    Args:
        sampling: how patches are taken.
        rows: queries of a micro-batch at most.
        max_pixels: limit on the size of an upscaled image.
    """

    def __init__(self, sampling: Sampling, rows: int, max_pixels: int) -> None:
        self._sampling = sampling
        self._shape = (rows, sampling.patches, sampling.patch_size, sampling.patch_size, 3)
        self._max_pixels = max_pixels
        # As many buffers as the queues let be under way at once; memory that has been touched
        # already is several times faster to write to than fresh memory.
        self._free: deque[Pixels] = deque()

    def begin(self) -> Pixels:
        """Return a buffer for one micro-batch, uint8 [rows, D, P, P, 3]."""
        try:
            return self._free.pop()
        except IndexError:
            return np.empty(self._shape, np.uint8)

    def sample(self, query: Query, batch: MicroBatch, buffer: Pixels) -> None:
        """Add the patches of one decoded query to `batch`, whose buffer is `buffer`."""
        if sample(query, buffer[len(batch.sampled)], self._sampling, self._max_pixels):
            batch.sampled.append(query)

    def finish(self, batch: MicroBatch, buffer: Pixels) -> None:
        """Give `batch` its patches: a view of `buffer`."""
        batch.patches = buffer[: len(batch.sampled)].reshape(-1, *self._shape[2:])

    def release(self, batch: MicroBatch) -> None:
        """Take back the buffer of a micro-batch whose patches have been used."""
        if batch.patches is not None and isinstance(batch.patches.base, np.ndarray):
            self._free.append(batch.patches.base)
        batch.patches = None
