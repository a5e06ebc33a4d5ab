"""The interface of what scores patches on a GPU; ONNX Runtime's CUDA provider and TensorRT implement it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..bundle import BundleInfo
from .device import Stream


class Shape(NamedTuple):
    """Sizes of the scoring graph's tensors, in the words of `docs/bundle.md`: D, P, C and M."""

    patches: int
    patch_size: int
    feature_size: int
    exemplars: int

    @classmethod
    def of(cls, info: BundleInfo, exemplars: int) -> Shape:
        """Read the sizes from a bundle's description; M is `exemplars`."""
        return cls(info.sampling.patches, info.patch_size, info.feature_size, exemplars)

    @property
    def image_bytes(self) -> int:
        """Count the bytes of one image's patches, uint8 [D, P, P, 3]."""
        return self.patches * self.patch_size * self.patch_size * 3


class Tensors(NamedTuple):
    """Addresses on the device of one batch's tensors, each aligned to 256 bytes."""

    patches: int
    score: int
    exemplar_scores: int
    features: int


class Engine(Protocol):
    """Runs the scoring graph with the resident exemplar cache, `batch_size` images at a time.

    Attributes:
        name: as in `--backend`.
        version: the library's.
        precision: which of the bundle's graphs runs.
        batch_size: B. Always so many images are computed; ignore the scores behind those of a smaller batch.
        streams: one per lane; what is enqueued on a lane is computed in order, and lanes side by side.
    """

    name: str
    version: str
    precision: str
    batch_size: int
    streams: tuple[Stream, ...]

    def enqueue(self, tensors: Tensors, lane: int = 0) -> None:
        """Begin to score a batch.

        Raises:
            DeviceMemoryError: the device has too little memory.
            BackendError: it fails for another reason.
        """
        ...

    def resize(self, batch_size: int) -> None:
        """Change the batch size B, while nothing is under way on any stream.

        Raises:
            BackendError: the engine can't run batches of that size.
        """
        ...

    def close(self) -> None:
        """Give all memory back."""
        ...
