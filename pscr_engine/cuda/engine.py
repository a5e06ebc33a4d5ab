"""What scores patches on the device: the interface of ONNX Runtime's CUDA provider and of TensorRT."""

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
        """Those of a bundle."""
        return cls(info.sampling.patches, info.patch_size, info.feature_size, exemplars)

    @property
    def image_bytes(self) -> int:
        """The patches of one image, uint8 [D, P, P, 3]."""
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
        version: of the library.
        precision: which of the bundle's graphs runs.
        batch_size: B. Always so many are computed; of a smaller batch, the rest is to be ignored.
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
            BackendError: it failed otherwise.
        """
        ...

    def resize(self, batch_size: int) -> None:
        """Change B. Nothing is under way on any stream.

        Raises:
            BackendError: it can't run such batches.
        """
        ...

    def close(self) -> None:
        """Give all memory back."""
        ...
