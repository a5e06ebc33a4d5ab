"""Made-up images with labels: procedural scenes, degraded by known amounts.

A label is what an observer's mean opinion might be: it falls with the strength of the
degradation, plus rater noise. All of it follows from one seed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Scene = Image.Image

_MEAN_GREY, _CONTRAST, _GRAIN, _CHROMA = 120.0, 0.7, 4.0, 20.0


@dataclass(frozen=True, slots=True)
class SyntheticImage:
    """One made-up image.

    Args:
        image: the image, RGB.
        degradation: name of what was done to it.
        strength: how much of it, 0 to 1.
        mos: label, about 0 to 5; higher is better.
    """

    image: Image.Image
    degradation: str
    strength: float
    mos: float


def generate(count: int, *, size: int = 512, seed: int = 0, rater_noise: float = 0.15) -> Iterator[SyntheticImage]:
    """Make `count` images of `size`×`size` pixels, one after another.

    Args:
        count: how many.
        size: side in pixels.
        seed: image i depends on (seed, i) only, not on `count`.
        rater_noise: standard deviation of the label's noise.
    """
    return (make_image(index, size=size, seed=seed, rater_noise=rater_noise) for index in range(count))


def make_image(index: int, *, size: int = 512, seed: int = 0, rater_noise: float = 0.15) -> SyntheticImage:
    """Make image `index` of those that `generate` makes with the same settings."""
    names = list(DEGRADATIONS)
    rng = np.random.default_rng([seed, index])
    scene = _scene(rng, size)
    name = names[int(rng.integers(len(names)))]
    strength = float(rng.random())
    image = DEGRADATIONS[name](scene, strength, rng)
    mos = float(np.clip(4.6 - 4.0 * strength + rng.normal(0, rater_noise), 0, 5))
    return SyntheticImage(image, name, strength, round(mos, 4))


def _scene(rng: np.random.Generator, size: int) -> Scene:
    """Draw a gradient sky, textured ground and a few shaded shapes, with grain of all sizes; the average is grey.

    Photographs have grain and balanced colours, too: without grain, a blur would show at edges only, and
    without balance, a colour shift would be just another scene.
    """
    y, x = np.mgrid[0:size, 0:size] / size
    colours = _muted(rng, 3)
    sky = colours[0] + (colours[1] - colours[0]) * (y * rng.uniform(0.3, 1) + x * rng.uniform(0, 0.7))[..., None]
    frequency = rng.uniform(8, 60, 2)
    texture = np.sin(x * frequency[0] + 3 * np.sin(y * frequency[1])) * rng.uniform(5, 25)
    ground = (y > rng.uniform(0.4, 0.8))[..., None]
    image = Image.fromarray(_to_uint8(np.where(ground, colours[2] + texture[..., None], sky)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 9))):
        cx, cy = rng.uniform(0, size, 2)
        rx, ry = rng.uniform(size / 20, size / 5, 2)
        base = _muted(rng, 1)[0]
        polygon = rng.random() < 0.4
        for step in range(12):  # shading: nested, brighter towards the upper left
            shrink, lift = 1 - step / 14, step * 6
            colour = tuple(int(min(255, channel + lift)) for channel in base)
            left, top = cx - rx * shrink - step * rx / 40, cy - ry * shrink - step * ry / 40
            box = [left, top, left + 2 * rx * shrink, top + 2 * ry * shrink]
            if polygon:
                draw.polygon([(cx, box[1]), (box[2], cy), (cx, box[3]), (box[0], cy)], fill=colour)
            else:
                draw.ellipse(box, fill=colour)
    pixels = np.asarray(image, np.float64)
    balanced = _MEAN_GREY + (pixels - pixels.mean((0, 1))) * _CONTRAST
    return Image.fromarray(_to_uint8(balanced + _grain(rng, size)[..., None]))


def _muted(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw random colours not far from grey, float64 [count, 3]."""
    return rng.uniform(30, 220, (count, 1)) + rng.uniform(-_CHROMA, _CHROMA, (count, 3))


def _grain(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Make noise in octaves, each half as fine as the last and equally strong, float64 [size, size]."""
    out = np.zeros((size, size))
    cells = size
    while cells >= 8:
        octave = Image.fromarray(rng.normal(0, _GRAIN, (cells, cells)).astype(np.float32))
        out += np.asarray(octave.resize((size, size), Image.Resampling.BICUBIC))
        cells //= 2
    return out


def _between(least: float, most: float, strength: float) -> float:
    """Interpolate by equal ratios, since a blur grows as visibly from 1 to 2 pixels as from 4 to 8."""
    return float(least * (most / least) ** strength)


def _blur(image: Scene, strength: float, rng: np.random.Generator) -> Scene:
    return image.filter(ImageFilter.GaussianBlur(_between(0.3, 8, strength)))


def _noise(image: Scene, strength: float, rng: np.random.Generator) -> Scene:
    pixels = np.asarray(image, np.float64)
    return Image.fromarray(_to_uint8(pixels + rng.normal(0, 60 * strength, pixels.shape)))


def _blocking(image: Scene, strength: float, rng: np.random.Generator) -> Scene:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=round(_between(95, 2, strength)))
    return Image.open(buffer).convert("RGB")


def _colour_shift(image: Scene, strength: float, rng: np.random.Generator) -> Scene:
    """Move two channels against the third: a colour cast, not just a brighter or darker image."""
    direction = rng.permutation([1.0, 1.0, -1.0]) * rng.choice([-1.0, 1.0])
    return Image.fromarray(_to_uint8(np.asarray(image, np.float64) + 70 * strength * direction))


def _banding(image: Scene, strength: float, rng: np.random.Generator) -> Scene:
    step = _between(2, 64, strength)
    return Image.fromarray(_to_uint8(np.round(np.asarray(image, np.float64) / step) * step))


def _broken_geometry(image: Scene, strength: float, rng: np.random.Generator) -> Scene:
    pixels = np.asarray(image)
    shift = np.cumsum(rng.normal(0, 4 * strength, len(pixels))).round().astype(int)
    return Image.fromarray(np.stack([np.roll(row, by, axis=0) for row, by in zip(pixels, shift, strict=True)]))


def _to_uint8(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray(values.clip(0, 255).round(), np.uint8)


DEGRADATIONS: dict[str, Callable[[Scene, float, np.random.Generator], Scene]] = {
    "blur": _blur,
    "noise": _noise,
    "blocking": _blocking,
    "colour shift": _colour_shift,
    "banding": _banding,
    "broken geometry": _broken_geometry,
}
"""Name → function that degrades a scene: (image, strength 0 to 1, random generator) → image."""
