"""Use scores as rewards, in the forms in which training libraries call a reward function.

    from reward import Reward

    reward = Reward("model.pscr", device="cpu")
    reward(prompts, images)                         # list[float], one per image
    rewards, info = reward.ddpo(images, prompts, metadata)

Libraries differ in what they hand over. Those in the style of TRL's GRPO call `f(prompts=..., completions=...,
**columns)` by names and want a list of floats. Those in the style of DDPO call `f(images, prompts, metadata)` by
position and want rewards and a dictionary; their images are float tensors [B, 3, H, W] in [0, 1], or uint8 arrays
[B, H, W, 3].

A Scorer is the process's that opened it: with several processes, make a `Reward` in each. Within one, call it from as
many threads as you like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pscr_engine import Scorer


class Reward:
    """Rewards images with their quality.

    Args:
        bundle: as for `Scorer.open`.
        device: as for `Scorer.open`; "cpu" leaves the GPU to the training.
        failed: the reward of an image that can't be scored; None to raise ValueError instead, since a made-up reward
            would be learnt from.
    """

    __name__ = "pscr"  # trainers log rewards by their functions' names

    def __init__(self, bundle: str | None = None, *, device: str = "cpu", failed: float | None = None) -> None:
        self.scorer = Scorer.open(bundle, device=device)
        self.failed = failed

    def __call__(
        self, prompts: Sequence[Any] | None = None, images: Any = None, completions: Any = None, **columns: Any
    ) -> list[float]:
        """Return a reward per image; `prompts` and other columns of the data set don't change it.

        Args:
            prompts: one per image, if given.
            images: PIL images, paths, uint8 arrays or tensors, or float tensors in [0, 1].
            completions: the same, by the name that trainers of language models give to what was generated.
            columns: not used.
        """
        given = completions if images is None else images
        if given is None:
            raise TypeError("a reward needs images")
        scored = self.scorer.score(as_uint8(given))
        scored = scored if isinstance(scored, list) else [scored]
        if prompts is not None and len(prompts) != len(scored):
            raise ValueError(f"{len(prompts)} prompts for {len(scored)} images")
        rewards = []
        for number, image in enumerate(scored):
            if image.score is None and self.failed is None:
                raise ValueError(f"image {number} can't be scored: {image.status}, {image.error}")
            rewards.append(self.failed if image.score is None else image.score)
        return rewards

    def ddpo(
        self, images: Any, prompts: Sequence[Any], metadata: Any = None, **ways: Any
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return rewards, float64 [B], and nothing more to know, as trainers in the style of DDPO want it."""
        return np.array(self(prompts, images)), {}

    def close(self) -> None:
        """Close the scorer."""
        self.scorer.close()


def as_uint8(images: Any) -> Any:
    """Turn float images in [0, 1], as diffusion pipelines give them, into what an image file would hold.

    Raises:
        ValueError: they are beyond [0, 1], as images in [-1, 1] are, or not finite.
    """
    if isinstance(images, list | tuple):
        return [as_uint8(image) for image in images]
    dtype = str(getattr(images, "dtype", ""))
    if "float" not in dtype:
        return images
    if hasattr(images, "detach"):
        images = images.detach().float()  # rewards of this kind have no gradient
    # What leaves the decoder may be beyond by a rounding.
    if not (images.min() >= -1e-3 and images.max() <= 1 + 1e-3):
        raise ValueError("float images must be in [0, 1]: rescale them, from [-1, 1] by (images + 1) / 2")
    scaled = (images * 255).round().clip(0, 255)
    return scaled.byte() if hasattr(scaled, "byte") else scaled.astype(np.uint8)
