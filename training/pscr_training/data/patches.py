"""From files to the patches that a training step or an evaluation takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, Sampler

from pscr_engine.errors import DatasetError
from pscr_engine.records import Pixels, Query
from pscr_engine.sampling import Sampling, content_digest
from pscr_engine.stages.decode import DecodeOptions
from pscr_engine.stages.load import load_image

from .labelled import Item

_FLIP = 0.5


def read_pixels(item: Item) -> Pixels:
    """Uint8 [H, W, 3], decoded exactly as scoring decodes.

    Raises:
        DatasetError: the image can't be read.
    """
    query = Query(item.row, path=item.name, location=str(item.file))
    load_image(query, DecodeOptions())
    if not query.ok or query.pixels is None:
        raise DatasetError(f"{item.file}: {query.error}")
    return query.pixels


def patches_as_scored(item: Item, sampling: Sampling) -> Pixels:
    """Uint8 [D, P, P, 3]: the patches that scoring takes of this file."""
    digest = content_digest(item.file.read_bytes()) if sampling.name == "rps" else b""
    return _taken(read_pixels(item), sampling, digest)


class Decoded:
    """Decoded images that are kept for the next epoch, as far as memory is allowed.

    Args:
        nbytes: in each process that reads images.
    """

    def __init__(self, nbytes: int) -> None:
        self._left = nbytes
        self._kept: dict[int, Pixels] = {}

    def read(self, item: Item) -> Pixels:
        """Return the pixels of an image, uint8 [H, W, 3], as `read_pixels` does."""
        pixels = self._kept.get(item.row)
        if pixels is None:
            pixels = read_pixels(item)
            if pixels.nbytes <= self._left:
                self._left -= pixels.nbytes
                self._kept[item.row] = pixels
        return pixels


def patches_for_training(
    pixels: Pixels, sampling: Sampling, dice: np.random.Generator, count: int | None = None
) -> Pixels:
    """Uint8 [K, P, P, 3] of an image, or of its mirror image; random ones anew each time for "rps" and "none".

    Args:
        pixels: uint8 [H, W, 3].
        sampling: how the D patches are taken.
        dice: all that is drawn comes from it.
        count: K, how many of the D patches, drawn anew each time; None for all.
    """
    if dice.random() < _FLIP:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    if sampling.name == "none":
        return _random_crop(pixels, sampling, dice)
    return drawn(_taken(pixels, sampling, dice.bytes(16)), dice, count)


def drawn(patches: NDArray[Any], dice: np.random.Generator, count: int | None) -> NDArray[Any]:
    """Return `count` of D patches, drawn without repetition and in their order; all of them for None."""
    if count is None or count >= len(patches):
        return patches
    return patches[np.sort(dice.choice(len(patches), count, replace=False))]


def _taken(pixels: Pixels, sampling: Sampling, digest: bytes) -> Pixels:
    out = np.empty((sampling.patches, sampling.patch_size, sampling.patch_size, 3), np.uint8)
    sampling.sample(pixels, out, digest=digest)
    return out


def _random_crop(pixels: Pixels, sampling: Sampling, dice: np.random.Generator) -> Pixels:
    """The resized image's crop, not from its centre."""
    height, width = sampling.fitted_size(*pixels.shape[:2])
    resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    P = sampling.patch_size
    top, left = dice.integers(0, height - P + 1), dice.integers(0, width - P + 1)
    return np.ascontiguousarray(resized[None, top : top + P, left : left + P])


class Access(NamedTuple):
    """What a training set is asked for: all chance follows from it, so that a resumed run sees the same."""

    epoch: int
    place: int


class Pair(NamedTuple):
    """Two images: uint8 [K, P, P, 3], or their features, float32 [K, C], and label, each."""

    patches: NDArray[Any]
    mos: float
    other_patches: NDArray[Any]
    other_mos: float


@dataclass(frozen=True, slots=True)
class Pairs(Dataset[Pair]):
    """Each image with one other, drawn anew at each access.

    Args:
        items: of the training split.
        sampling: how patches are taken.
        seed: of all that is drawn.
        decoded: where images are kept.
        count: how many of an image's patches are used at each access; None for all.
        features: float32 [N, D, C]: the items' features by patch, taken instead of their patches, where the trunk is
            not trained; None to read the images.
    """

    items: Sequence[Item]
    sampling: Sampling
    seed: int
    decoded: Decoded
    count: int | None = None
    features: NDArray[np.float32] | None = None

    def __getitem__(self, access: Access) -> Pair:
        """The image `access.place` and its partner of this epoch."""
        dice = np.random.default_rng([self.seed, access.epoch, access.place])
        other = int(dice.integers(len(self.items) - 1))
        other += other >= access.place
        a, b = self.items[access.place], self.items[other]
        first = self.patches(access.place, dice)
        return Pair(first, a.mos, self.patches(other, dice), b.mos)

    def patches(self, index: int, dice: np.random.Generator) -> NDArray[Any]:
        """Uint8 [K, P, P, 3] of one item, or float32 [K, C] where its features are known."""
        if self.features is not None:
            return drawn(self.features[index], dice, self.count)
        return patches_for_training(self.decoded.read(self.items[index]), self.sampling, dice, self.count)


@dataclass(frozen=True, slots=True)
class Singles(Pairs):
    """Each image by itself: for the no-reference baseline, and where all of a batch are compared."""

    def __getitem__(self, access: Access) -> Pair:
        """The image `access.place`; the other's place is empty."""
        dice = np.random.default_rng([self.seed, access.epoch, access.place])
        item = self.items[access.place]
        patches = self.patches(access.place, dice)
        return Pair(patches, item.mos, patches[:0], 0.0)


@dataclass(frozen=True, slots=True)
class Shuffled(Sampler[list[Access]]):
    """The batches of one epoch: every image once, in an order that follows from seed and epoch.

    Args:
        count: images.
        batch_size: per batch; the last may be smaller, and one image alone joins the batch before.
        seed: of the order.
        epoch: from 0.
    """

    count: int
    batch_size: int
    seed: int
    epoch: int

    def __iter__(self) -> Iterator[list[Access]]:
        """Batches of accesses."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count).tolist()
        starts = [*range(0, self.count, self.batch_size)][: len(self)]
        for start, end in zip(starts, [*starts[1:], self.count], strict=True):
            yield [Access(self.epoch, index) for index in order[start:end]]

    def __len__(self) -> int:
        """How many batches."""
        whole, left = divmod(self.count, self.batch_size)
        return max(1, whole + (left > 1))


class Batch(NamedTuple):
    """Pairs, stacked: uint8 [B, K, P, P, 3] or float32 [B, K, C], and labels, float32 [B], each."""

    patches: torch.Tensor
    mos: torch.Tensor
    other_patches: torch.Tensor
    other_mos: torch.Tensor


def stack(pairs: Sequence[Pair]) -> Batch:
    """One batch."""

    def labels(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32)

    def images(arrays: Sequence[NDArray[Any]]) -> torch.Tensor:
        return torch.from_numpy(np.stack(arrays))

    return Batch(
        images([pair.patches for pair in pairs]),
        labels([pair.mos for pair in pairs]),
        images([pair.other_patches for pair in pairs]),
        labels([pair.other_mos for pair in pairs]),
    )
