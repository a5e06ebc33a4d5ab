"""Chooses the exemplars among many labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pscr_engine.errors import ExemplarError, option

RULES = ("stratified", "random", "all")


def select(labels: Sequence[float], count: int | None, rule: str = "stratified", seed: int = 0) -> list[int]:
    """Choose exemplars and return their indices, ascending.

    Args:
        labels: the labels of all images.
        count: how many; None for all of them.
        rule: "stratified": the middle one of each of `count` equal stretches of the labels' order;
            "random"; "all".
        seed: seed of "random".

    Raises:
        ExemplarError: there are fewer than `count`.
    """
    total = len(labels)
    if count is None or rule == "all":
        return list(range(total))
    if count > total:
        raise ExemplarError(f"{option('--num-exemplars')} {count}: the list has only {total}")
    if rule == "random":
        return sorted(np.random.default_rng(seed).choice(total, count, replace=False).tolist())
    order = sorted(range(total), key=lambda index: (labels[index], index))
    return sorted(order[(2 * k + 1) * total // (2 * count)] for k in range(count))
