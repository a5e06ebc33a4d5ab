"""Runs that score images by some of their patches: the rule that they follow, and what became of the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from ..backends.devices import is_gpu
from ..backends.early import early_rule, first_patches
from ..bundle import Bundle
from ..config import ScoreConfig
from ..errors import MissingDependencyError, UsageError, option
from ..output.parts import Parts
from ..stages.decision import PatchRule
from ..stages.sink import DECISION, PATCHES_USED


def rule_of(config: ScoreConfig, bundle: Bundle, precision: str) -> PatchRule | None:
    """Return the rule that a run's images are scored by; None if all patches are.

    Raises:
        UsageError, BundleError: the bundle can't be used so.
    """
    if config.patches is not None:
        return first_patches(bundle, config.patches)
    if config.keep_above is not None:
        return early_rule(bundle, precision, config.keep_above, config.wanted_risk)
    if config.keep_top is not None:  # before its threshold is known: says what is missing, wherever that will be
        return early_rule(bundle, precision, 0.0, config.wanted_risk)
    return None


def check_devices(config: ScoreConfig, devices: Sequence[str]) -> None:
    """Check that a run which is to score by some of the patches can.

    Raises:
        UsageError: not on one of these devices.
        MissingDependencyError: not without onnx.
    """
    if not config.early:
        return
    try:
        import onnx  # noqa: F401 - needed once workers begin: say so before anything does
    except ImportError:
        raise MissingDependencyError("onnx", "scoring with some of the patches", "cpu,early") from None
    if any(map(is_gpu, devices)):
        keep = "--keep-above" if config.keep_top is None else "--keep-top"
        flag = option("--patches" if config.patches is not None else keep)
        raise UsageError(f"{flag} is for processors, whose cores the patches take: add {option('--devices', 'cpu')}")


def count_decisions(config: ScoreConfig, parts: Parts) -> dict[str, Any]:
    """Return what `_SUCCESS` says of a run's decisions: how many images are kept, by how many patches."""
    if config.keep_above is None:
        return {}
    counts: Counter[str] = Counter(keep=0, drop=0)
    patches = 0
    for index in parts.indices():
        for batch in parts.batches(index, [DECISION.name, PATCHES_USED.name]):
            for each in batch.column(0).drop_null().value_counts().to_pylist():
                counts[each["values"]] += each["counts"]
            patches += pc.sum(batch.column(1)).as_py() or 0
    images = counts.total()
    mean = round(patches / images, 3) if images else None
    return {"decisions": {"threshold": config.keep_above, **counts, "patches_per_image": mean}}
