"""Where the patches of an image lie: OPS, NOPS, RPS and none.

The positions at 512×512 are those of the PSCR authors' implementation. Other sizes keep the same
*fractions of the free space* (side minus patch size), height and width separately, so a patch
grid reaches the same relative places of any image.

=====  ===  ==========================================================================
name    D   positions
=====  ===  ==========================================================================
ops     9   3×3 grid, row-major; starts 0, 150, 288 of 288 (P = 224), 0, 100, 213 of 213 (P = 299)
nops    4   2×2 grid, row-major; starts 0, 224 of 288 (P = 224): adjacent at 512×512
rps     9   random corners, drawn from the image's own content
none    1   shorter side resized to 256 (320 for P = 299), then the centre P×P crop
=====  ===  ==========================================================================
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from .errors import UsageError
from .records import Pixels

SAMPLINGS = ("ops", "nops", "rps", "none")


class TooSmallError(Exception):
    """An image can't be brought up to the patch size."""


class Box(NamedTuple):
    """Where a patch lies, in pixels of the image as it was given; fractions of a pixel where that was resized."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the patches of an image are taken.

    Args:
        name: "ops", "nops", "rps" or "none".
        patch_size: P, the side of a patch in pixels.
        patches: D, the number of patches of an image.
        fractions: grid starts as fractions of the free space, for "ops" and "nops".
        resize: what the shorter side is resized to first, for "none".
        seed: what makes one set of random draws differ from another, for "rps".
    """

    name: str
    patch_size: int
    patches: int
    fractions: tuple[Fraction, ...] = ()
    resize: int | None = None
    seed: int = 0

    @classmethod
    def create(cls, name: str, patch_size: int, seed: int = 0) -> Sampling:
        """Make the sampling called `name` for patches of `patch_size` pixels.

        Raises:
            UsageError: unknown name, or a patch size for which the sampling is not defined.
        """
        if patch_size < 1:
            raise UsageError(f"patch size {patch_size}: must be at least 1")
        if name == "ops":
            middle = Fraction(100, 213) if patch_size == 299 else Fraction(150, 288)
            return cls(name, patch_size, 9, (Fraction(0), middle, Fraction(1)))
        if name == "nops":
            if patch_size > 256:
                raise UsageError(
                    f"sampling nops: two patches of {patch_size} pixels don't fit side by side "
                    "in 512 pixels; use ops, rps or none"
                )
            return cls(name, patch_size, 4, (Fraction(0), Fraction(patch_size, 512 - patch_size)))
        if name == "rps":
            try:
                _check_seed(seed)
            except ValueError as error:
                raise UsageError(str(error)) from error
            return cls(name, patch_size, 9, seed=seed)
        if name == "none":
            return cls(name, patch_size, 1, resize=320 if patch_size == 299 else round(patch_size * 256 / 224))
        raise UsageError(f"unknown sampling {name!r}: choose from {', '.join(SAMPLINGS)}")

    def as_json(self) -> dict[str, Any]:
        """Return the sampling as `bundle.json` stores it."""
        out: dict[str, Any] = {"name": self.name, "patches": self.patches}
        if self.fractions:
            out["fractions"] = [[f.numerator, f.denominator] for f in self.fractions]
        if self.resize is not None:
            out["resize"] = self.resize
        if self.name == "rps":
            out["seed"] = self.seed
        return out

    @classmethod
    def from_json(cls, value: dict[str, Any], patch_size: int) -> Sampling:
        """Read what `as_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: `value` is not a sampling.
        """
        name, patches = str(value["name"]), int(value["patches"])
        if name not in SAMPLINGS:
            raise ValueError(f"unknown sampling {name!r}")
        if not 1 <= patch_size <= 4096 or not 1 <= patches <= 1024:
            raise ValueError(f"sampling with {patches} patches of {patch_size} pixels")
        fractions = tuple(Fraction(int(n), int(d)) for n, d in value.get("fractions", ()))
        if any(not 0 <= f <= 1 for f in fractions):
            raise ValueError(f"sampling fractions {value['fractions']} are not within 0 and 1")
        if name in ("ops", "nops") and len(fractions) ** 2 != patches:
            raise ValueError(f"sampling {name} with {len(fractions)} fractions has not {patches} patches")
        resize = int(value["resize"]) if name == "none" else None
        if resize is not None and (resize < patch_size or patches != 1):
            raise ValueError(f"sampling none with {patches} patches resized to {resize}")
        seed = int(value.get("seed", 0))
        _check_seed(seed)
        return cls(name, patch_size, patches, fractions, resize, seed)

    def corners(self, height: int, width: int, digest: bytes = b"") -> list[tuple[int, int]]:
        """Return top and left of each patch in an image of at least P×P pixels.

        Args:
            height: of the image, after upscaling or resizing.
            width: likewise.
            digest: what the random draws of "rps" depend on, beside `seed`.

        Returns:
            D pairs (top, left), row-major for grids.
        """
        free_h, free_w = height - self.patch_size, width - self.patch_size
        if self.name == "none":
            # Python rounds halves to even, which is what the reference's centre crop does.
            return [(round(free_h / 2), round(free_w / 2))]
        if self.name == "rps":
            return _random_corners(self.seed, digest, free_h, free_w, self.patches)
        tops = [_scale(f, free_h) for f in self.fractions]
        lefts = [_scale(f, free_w) for f in self.fractions]
        return [(top, left) for top in tops for left in lefts]

    def boxes(self, height: int, width: int, digest: bytes = b"", max_pixels: int | None = None) -> list[Box]:
        """Return where the D patches lie in an image of any size, before it is enlarged or resized.

        Args:
            height: of the image as it was given.
            width: likewise.
            digest: see `corners`.
            max_pixels: see `sample`.

        Raises:
            TooSmallError: as `sample`.
        """
        new_h, new_w = self.fitted_size(height, width, max_pixels)
        x, y, P = width / new_w, height / new_h, self.patch_size
        corners = self.corners(new_h, new_w, digest)
        return [Box(left * x, top * y, (left + P) * x, (top + P) * y) for top, left in corners]

    def sample(self, pixels: Pixels, out: Pixels, *, digest: bytes = b"", max_pixels: int | None = None) -> None:
        """Copy the patches of one image.

        Args:
            pixels: uint8 [H, W, 3].
            out: uint8 [D, P, P, 3], filled.
            digest: see `corners`.
            max_pixels: limit on the size of an upscaled image.

        Raises:
            TooSmallError: upscaling to P would pass `max_pixels`.
        """
        pixels = self._fit(pixels, max_pixels)
        P = self.patch_size
        corners = self.corners(pixels.shape[0], pixels.shape[1], digest)
        if grid := _even_grid(corners):
            # One copy instead of D: each gives the interpreter lock away and has to win it back.
            rows, columns, down, right = grid
            windows = sliding_window_view(pixels, (P, P, 3))[:, :, 0]
            top, left = corners[0]
            even = windows[top :: down or 1, left :: right or 1][:rows, :columns]
            np.copyto(out.reshape(rows, columns, P, P, 3), even)
            return
        for patch, (top, left) in zip(out, corners, strict=True):
            patch[:] = pixels[top : top + P, left : left + P]

    def _fit(self, pixels: Pixels, max_pixels: int | None) -> Pixels:
        """Resize for "none"; otherwise enlarge, keeping the aspect ratio, if a side is below P."""
        height, width = pixels.shape[:2]
        new_h, new_w = self.fitted_size(height, width, max_pixels)
        if (new_h, new_w) == (height, width):
            return pixels
        resized = Image.fromarray(pixels).resize((new_w, new_h), Image.Resampling.BILINEAR)
        return np.asarray(resized)

    def fitted_size(self, height: int, width: int, max_pixels: int | None = None) -> tuple[int, int]:
        """Return the height and width that an image is given before its patches are taken.

        Raises:
            TooSmallError: that would pass `max_pixels`.
        """
        short = min(height, width)
        target = self.resize or max(short, self.patch_size)
        if short == target:
            return height, width
        # Only the longer side is scaled, rounded down: the shorter is the target exactly.
        new_h, new_w = (
            (target, int(target * width / height)) if height <= width else (int(target * height / width), target)
        )
        if max_pixels is not None and new_h * new_w > max(max_pixels, target * target):
            raise TooSmallError(
                f"{width}×{height}: resizing the shorter side to {target} pixels would make "
                f"{new_w * new_h:,} pixels, over the limit of {max_pixels:,}"
            )
        return new_h, new_w


def content_digest(content: bytes | Pixels) -> bytes:
    """Return 16 bytes that stand for an image's content: its encoded bytes, or its pixels if it has no others."""
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(content if isinstance(content, bytes) else np.ascontiguousarray(content).data)
    return hasher.digest()


def _check_seed(seed: int) -> None:
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed {seed}: must fit in 64 bits")


def _scale(fraction: Fraction, free: int) -> int:
    """Return `fraction` of `free`, rounded half up in integers: the same on every machine."""
    return (2 * free * fraction.numerator + fraction.denominator) // (2 * fraction.denominator)


def _even_grid(corners: list[tuple[int, int]]) -> tuple[int, int, int, int] | None:
    """Return rows, columns and the steps between them, if the corners are a grid with even steps."""
    tops, lefts = sorted({top for top, _ in corners}), sorted({left for _, left in corners})
    down, right = (values[1] - values[0] if len(values) > 1 else 0 for values in (tops, lefts))
    even = [(tops[0] + i * down, lefts[0] + j * right) for i in range(len(tops)) for j in range(len(lefts))]
    return (len(tops), len(lefts), down, right) if even == corners else None


def _random_corners(seed: int, digest: bytes, free_h: int, free_w: int, count: int) -> list[tuple[int, int]]:
    """Draw `count` uniform corners from an extendable-output hash: no generator state, no library version."""
    stream = hashlib.shake_128(seed.to_bytes(8, "little", signed=True) + digest).digest(16 * count)
    words = np.frombuffer(stream, dtype="<u8").tolist()
    return [((t * (free_h + 1)) >> 64, (x * (free_w + 1)) >> 64) for t, x in zip(words[::2], words[1::2], strict=True)]
