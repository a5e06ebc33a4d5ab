"""The training record that pscr-engine keeps in its checkpoints, under a key that other readers ignore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

KEY = "pscr_engine"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What export and evaluation need to know about a training, beside the weights.

    Args:
        method: "contrastive" or "no-reference".
        sampling: name of the patch sampling.
        patch_size: P.
        database: how to open the labelled images: keyword arguments of `pscr_training.data.open.Source`.
        split: rule, seed and validation share of the split.
        label_range: smallest and largest label of the scale.
        exemplars: the training images: their names, files and labels.
        settings: what else the training depends on.
        history: one entry per epoch.
        best: validation SRCC of the best epoch so far; None before the first.
    """

    method: str
    sampling: str
    patch_size: int
    database: Mapping[str, Any]
    split: Mapping[str, Any]
    label_range: tuple[float, float]
    exemplars: Mapping[str, list[Any]]
    settings: Mapping[str, Any]
    history: list[dict[str, float]]
    best: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain values, so that nothing has to be executed to read them."""
        return {"version": _VERSION, **asdict(self), "label_range": list(self.label_range)}

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Read what `as_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: `value` is something else, or of another version.
        """
        if not isinstance(value, Mapping) or value["version"] != _VERSION:
            raise ValueError("another version")
        low, high = (float(end) for end in value["label_range"])
        exemplars = {name: list(value["exemplars"][name]) for name in ("names", "files", "mos")}
        if len({len(column) for column in exemplars.values()}) != 1:
            raise ValueError("exemplars")
        return cls(
            method=str(value["method"]),
            sampling=str(value["sampling"]),
            patch_size=int(value["patch_size"]),
            database=dict(value["database"]),
            split=dict(value["split"]),
            label_range=(low, high),
            exemplars=exemplars,
            settings=dict(value["settings"]),
            history=list(value["history"]),
            best=None if value["best"] is None else float(value["best"]),
        )
