"""Reads images, and takes the patches that a training step or an evaluation needs of them."""

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
    """Read an image as uint8 [H, W, 3], decoded exactly as scoring decodes.

    Raises:
        DatasetError: the image can't be read.
    """
    query = Query(item.row, path=item.name, location=str(item.file))
    load_image(query, DecodeOptions())
    if not query.ok or query.pixels is None:
        raise DatasetError(f"{item.file}: {query.error}")
    return query.pixels


def patches_as_scored(item: Item, sampling: Sampling) -> Pixels:
    """Return the patches that scoring takes of an image, uint8 [D, P, P, 3]."""
    digest = content_digest(item.file.read_bytes()) if sampling.name == "rps" else b""
    return _sample(read_pixels(item), sampling, digest)


class Decoded:
    """A cache of decoded images for the next epochs, of limited size.

    Args:
        nbytes: the limit, in bytes, in each process that reads images.
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
    """Take patches, uint8 [K, P, P, 3], of an image or its mirror image; for "rps" and "none" at random positions.

    Args:
        pixels: uint8 [H, W, 3].
        sampling: how the D patches are taken.
        dice: the generator of all that is random here.
        count: K, how many of the D patches, drawn anew each time; None for all.
    """
    if dice.random() < _FLIP:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    if sampling.name == "none":
        return _random_crop(pixels, sampling, dice)
    return drawn(_sample(pixels, sampling, dice.bytes(16)), dice, count)


def drawn(patches: NDArray[Any], dice: np.random.Generator, count: int | None) -> NDArray[Any]:
    """Return `count` of D patches, drawn without repetition and in their order; all of them for None."""
    if count is None or count >= len(patches):
        return patches
    return patches[np.sort(dice.choice(len(patches), count, replace=False))]


def _sample(pixels: Pixels, sampling: Sampling, digest: bytes) -> Pixels:
    out = np.empty((sampling.patches, sampling.patch_size, sampling.patch_size, 3), np.uint8)
    sampling.sample(pixels, out, digest=digest)
    return out


def _random_crop(pixels: Pixels, sampling: Sampling, dice: np.random.Generator) -> Pixels:
    """Take one patch, uint8 [1, P, P, 3], at a random position of the resized image, instead of its centre."""
    height, width = sampling.fitted_size(*pixels.shape[:2])
    resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    P = sampling.patch_size
    top, left = dice.integers(0, height - P + 1), dice.integers(0, width - P + 1)
    return np.ascontiguousarray(resized[None, top : top + P, left : left + P])


class Access(NamedTuple):
    """Which item of a training set to read, and in which epoch: a resumed run draws the same from the same two."""

    epoch: int
    position: int


class Pair(NamedTuple):
    """Two images: of each its patches, uint8 [K, P, P, 3], or their features, float32 [K, C], and its label."""

    patches: NDArray[Any]
    mos: float
    other_patches: NDArray[Any]
    other_mos: float


@dataclass(frozen=True, slots=True)
class Pairs(Dataset[Pair]):
    """A training set of pairs: each image with one other, drawn anew in each epoch.

    Args:
        items: the training images.
        sampling: how patches are taken.
        seed: seed of all that is drawn.
        decoded: the cache of decoded images.
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
        """Return an image and its partner of this epoch."""
        dice = np.random.default_rng([self.seed, access.epoch, access.position])
        other = int(dice.integers(len(self.items) - 1))
        other += other >= access.position
        a, b = self.items[access.position], self.items[other]
        first = self.patches(access.position, dice)
        return Pair(first, a.mos, self.patches(other, dice), b.mos)

    def patches(self, index: int, dice: np.random.Generator) -> NDArray[Any]:
        """Return patches of one item, uint8 [K, P, P, 3], or their features, float32 [K, C], where these are known."""
        if self.features is not None:
            return drawn(self.features[index], dice, self.count)
        return patches_for_training(self.decoded.read(self.items[index]), self.sampling, dice, self.count)


@dataclass(frozen=True, slots=True)
class Singles(Pairs):
    """A training set of single images, for the no-reference baseline and for comparing all images of a batch."""

    def __getitem__(self, access: Access) -> Pair:
        """Return an image as a pair whose other image is empty."""
        dice = np.random.default_rng([self.seed, access.epoch, access.position])
        item = self.items[access.position]
        patches = self.patches(access.position, dice)
        return Pair(patches, item.mos, patches[:0], 0.0)


@dataclass(frozen=True, slots=True)
class Shuffled(Sampler[list[Access]]):
    """The batches of one epoch: every image once, in an order that follows from seed and epoch.

    Args:
        count: number of images.
        batch_size: images per batch; the last may be smaller, and one image alone joins the batch before.
        seed: seed of the order.
        epoch: from 0.
    """

    count: int
    batch_size: int
    seed: int
    epoch: int

    def __iter__(self) -> Iterator[list[Access]]:
        """Yield each batch, as a list of accesses."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count).tolist()
        starts = [*range(0, self.count, self.batch_size)][: len(self)]
        for start, end in zip(starts, [*starts[1:], self.count], strict=True):
            yield [Access(self.epoch, index) for index in order[start:end]]

    def __len__(self) -> int:
        """Return the number of batches."""
        whole, left = divmod(self.count, self.batch_size)
        return max(1, whole + (left > 1))


class Batch(NamedTuple):
    """Stacked pairs: of each side patches, uint8 [B, K, P, P, 3], or features, float32 [B, K, C], and labels, [B]."""

    patches: torch.Tensor
    mos: torch.Tensor
    other_patches: torch.Tensor
    other_mos: torch.Tensor


def stack(pairs: Sequence[Pair]) -> Batch:
    """Join pairs into one batch."""

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
