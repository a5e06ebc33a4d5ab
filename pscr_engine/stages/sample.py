"""Sample: from decoded images to one array of patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..records import Pixels, Query, Status
from ..sampling import Sampling, TooSmallError


class PatchBatch:
    """A reusable buffer for the patches of up to `batch_size` images.

    Args:
        sampling: how patches are taken.
        batch_size: B, the images that fit.
        max_pixels: limit on the size of an upscaled image.
    """

    def __init__(self, sampling: Sampling, batch_size: int, max_pixels: int) -> None:
        D, P = sampling.patches, sampling.patch_size
        self._sampling = sampling
        self._max_pixels = max_pixels
        self._buffer: Pixels = np.empty((batch_size, D, P, P, 3), np.uint8)

    def fill(self, queries: Sequence[Query]) -> tuple[list[Query], Pixels]:
        """Take the patches of `queries` (at most `batch_size`).

        Returns:
            The queries that have patches, and those, uint8 [len(queries)·D, P, P, 3]: a view of
            the buffer, valid until the next call.
        """
        sampled: list[Query] = []
        for query in queries:
            if not query.ok or query.pixels is None:
                continue
            try:
                self._sampling.sample(
                    query.pixels, self._buffer[len(sampled)], digest=query.digest, max_pixels=self._max_pixels
                )
            except TooSmallError as error:
                query.fail(Status.TOO_SMALL, str(error))
                continue
            query.pixels = None
            sampled.append(query)
        _, D, P, _, channels = self._buffer.shape
        return sampled, self._buffer[: len(sampled)].reshape(len(sampled) * D, P, P, channels)
