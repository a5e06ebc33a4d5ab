"""Splits labelled images into those that train, those that choose the best epoch, and those that test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pscr_engine.errors import DatasetError, option

from .labelled import Item, Labelled

SPLITS = ("paper", "random", "prompt-disjoint", "column")
_TRAIN_SHARE = 0.8
# The PSCR authors shuffle with this seed, whatever their other seeds are.
_AUTHORS_SEED = 1


class Split(NamedTuple):
    """The items to train on, to validate on and to test on; no item is in two of the lists."""

    train: list[Item]
    val: list[Item]
    test: list[Item]


def split(labelled: Labelled, rule: str, *, seed: int = 1, val_share: float = 0.1) -> Split:
    """Split a labelled set into training, validation and test images.

    Args:
        labelled: the set.
        rule: "paper" (every fourth or fifth row is for the test), "random" (the PSCR authors' NumPy shuffle,
            80/20), "prompt-disjoint" (80/20 of the prompts) or "column" (as the list says).
        seed: seed of the prompts' order, and of which training images validate.
        val_share: share of the training images that validate; none do where the list itself names validation images.

    Raises:
        DatasetError: the set has no such split, or a part would be empty.
    """
    items = labelled.items
    match rule:
        case "paper":
            if labelled.paper_every is None:
                raise DatasetError(
                    f"{labelled.name}: the paper splits only its own databases; use {option('--split', 'random')}"
                )
            every = labelled.paper_every
            train = [item for item in items if item.row % every != every - 1]
            test = [item for item in items if item.row % every == every - 1]
        case "random":
            # By row, left-out rows included, and as a list: the authors' own order.
            order = list(range(labelled.rows))
            np.random.RandomState(_AUTHORS_SEED).shuffle(order)
            first = set(order[: int(labelled.rows * _TRAIN_SHARE)])
            train = [item for item in items if item.row in first]
            test = [item for item in items if item.row not in first]
        case "prompt-disjoint":
            train, test = _by_prompt(labelled, items, _TRAIN_SHARE, seed)
        case "column":
            if any(item.part is None for item in items):
                raise DatasetError(
                    f"{labelled.name}: no column says which image is for what; name it with {option('--split-column')}"
                )
            train = [item for item in items if item.part == "train"]
            test = [item for item in items if item.part == "test"]
        case _:
            raise DatasetError(f"unknown split {rule!r}: choose from {', '.join(SPLITS)}")
    val = [item for item in items if item.part == "val"] if rule == "column" else []
    if not val and val_share > 0:
        train, val = _take_val(labelled, train, rule, val_share, seed)
    for name, part in (("training", train), ("test", test)):
        if len(part) < 2:
            raise DatasetError(
                f"{labelled.name}: the split {rule} leaves {len(part)} {name} image{'s' * (len(part) != 1)}, and 2 are "
                "the least; use more images"
            )
    return Split(train, val, test)


def leakage(train: Sequence[Item], test: Sequence[Item]) -> float | None:
    """Return the share of test images whose prompt is also in training; None if prompts are not known."""
    if not test or any(item.prompt is None for item in test):
        return None
    seen = {item.prompt for item in train}
    return sum(item.prompt in seen for item in test) / len(test)


def _take_val(
    labelled: Labelled, train: list[Item], rule: str, share: float, seed: int
) -> tuple[list[Item], list[Item]]:
    if rule == "prompt-disjoint":
        return _by_prompt(labelled, train, 1 - share, seed + 1)
    chosen = set(np.random.RandomState(seed).permutation(len(train))[: round(len(train) * share)].tolist())
    return (
        [item for index, item in enumerate(train) if index not in chosen],
        [item for index, item in enumerate(train) if index in chosen],
    )


def _by_prompt(labelled: Labelled, items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    prompts = list(dict.fromkeys(item.prompt for item in items))
    if None in prompts:
        raise DatasetError(
            f"{labelled.name}: prompts are not known, so it can't be split by them; use {option('--split', 'random')}"
        )
    order = np.random.RandomState(seed).permutation(len(prompts))
    first = {prompts[index] for index in order[: int(len(prompts) * share)]}
    return [item for item in items if item.prompt in first], [item for item in items if item.prompt not in first]
