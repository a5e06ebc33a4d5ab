"""What `NAME.json` says about a shipped model.

One JSON object with exactly these keys; texts are single lines, not empty::

    {
      "format": "pscr-model",
      "format_version": 1,
      "name": "agiqa3k-lite0",                      the file's name without .json
      "bundle": "9f2c…",                            SHA-256 of bundle.json (`pscr-engine inspect`: digest)
      "summary": "what it is for, in a sentence",
      "trunk": "EfficientNet-Lite0, started from ImageNet weights",
      "data": "AGIQA-3K, quality: 2,982 images of six generators",
      "split": "prompt-disjoint, seed 1: 2,088 images to train, 298 to validate, 596 to test",
      "figures": {                                  precision → figures on that split's test images, of each of
        "fp32": {                                   the bundle's precisions or of some
          "images": 596,                            how many test images
          "srcc": [0.85, 0.82, 0.88],               value, and its 95% interval: lower end, upper end
          "plcc": [0.88, 0.86, 0.90],
          "krcc": …, "plcc_logistic": …, "rmse": …, "rmse_logistic": …    these four may be left out
        }
      },
      "licence": {"data": "…", "weights": "…"},     of the images it was trained on, and of the bundle
      "rebuild": "make model"                       the command that makes it again
    }

The object of a precision is what `pscr-engine evaluate --json` writes as "metrics".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..bundle import PRECISIONS
from ..errors import BundleError

FORMAT, FORMAT_VERSION = "pscr-model", 1
_REQUIRED = ("srcc", "plcc")
_OPTIONAL = ("krcc", "plcc_logistic", "rmse", "rmse_logistic")
_TEXTS = ("summary", "trunk", "data", "split", "rebuild")
_KEYS = {"format", "format_version", "name", "bundle", *_TEXTS, "figures", "licence"}


class Interval(NamedTuple):
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figures:
    """How well one precision's scores agree with the labels of the test images.

    Args:
        images: how many test images.
        estimates: name → figure: "srcc" and "plcc", perhaps "krcc", "plcc_logistic", "rmse", "rmse_logistic".
    """

    images: int
    estimates: Mapping[str, Interval]

    @property
    def srcc(self) -> Interval:
        """Return Spearman's rank correlation."""
        return self.estimates["srcc"]

    @property
    def plcc(self) -> Interval:
        """Return Pearson's correlation."""
        return self.estimates["plcc"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The content of `NAME.json`.

    Args:
        name: the model's name.
        bundle: hexadecimal SHA-256 of the `bundle.json` that all of this is about.
        summary: what the model is for.
        trunk: its network, and what training started from.
        data: what it was trained on.
        split: how the data was divided, and how many images each part has.
        figures: precision → agreement with the labels of the test images.
        data_licence: licence of the images that it was trained on.
        weights_licence: licence of the bundle.
        rebuild: the command that makes it again.
    """

    name: str
    bundle: str
    summary: str
    trunk: str
    data: str
    split: str
    figures: Mapping[str, Figures]
    data_licence: str
    weights_licence: str
    rebuild: str

    @classmethod
    def read(cls, path: Path) -> ModelFacts:
        """Read `NAME.json`.

        Raises:
            BundleError: it is not there, or not as this module says.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            facts = cls._from_json(value)
            if facts.name != path.stem:
                raise ValueError(f"'name' is {facts.name!r}")
        except OSError as error:
            raise BundleError(f"{path}: can't be read ({error.strerror}); install pscr-engine again") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise BundleError(f"{path}: malformed ({error}); install pscr-engine again") from error
        return facts

    @classmethod
    def _from_json(cls, value: Any) -> ModelFacts:
        fields = _object(value, "the file", _KEYS)
        if (fields["format"], fields["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"'format' is not {FORMAT!r} in version {FORMAT_VERSION}")
        digest = _text(fields, "bundle")
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ValueError("'bundle' is no SHA-256")
        if not isinstance(fields["figures"], dict) or not fields["figures"]:
            raise ValueError("'figures' has no precision")
        if unknown := sorted(set(fields["figures"]) - set(PRECISIONS)):
            raise ValueError(f"'figures' has {unknown[0]!r}, which is no precision")
        licence = _object(fields["licence"], "'licence'", {"data", "weights"})
        return cls(
            name=_text(fields, "name"),
            bundle=digest,
            **{key: _text(fields, key) for key in _TEXTS},
            figures={precision: _figures(precision, each) for precision, each in fields["figures"].items()},
            data_licence=_text(licence, "data"),
            weights_licence=_text(licence, "weights"),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that `read` reads."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "bundle": self.bundle,
            **{key: getattr(self, key) for key in _TEXTS},
            "figures": {
                precision: {"images": each.images, **{name: list(figure) for name, figure in each.estimates.items()}}
                for precision, each in self.figures.items()
            },
            "licence": {"data": self.data_licence, "weights": self.weights_licence},
        }


def _object(value: Any, what: str, keys: set[str], optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return a JSON object that has these keys and no others, or raise TypeError or ValueError."""
    if not isinstance(value, dict):
        raise TypeError(f"{what} is no object")
    if missing := sorted(keys - set(value)):
        raise ValueError(f"{what} lacks {missing[0]!r}")
    if unknown := sorted(set(value) - keys - optional):
        raise ValueError(f"{what} has {unknown[0]!r}, which means nothing here")
    return value


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields[key]
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{key!r} is no line of text")
    return value


def _figures(precision: str, value: Any) -> Figures:
    fields = _object(value, f"'figures' of {precision}", {"images", *_REQUIRED}, frozenset(_OPTIONAL))
    images = fields["images"]
    if type(images) is not int or images < 1:
        raise ValueError(f"'images' of {precision} is no number of images")
    names = [name for name in (*_REQUIRED, *_OPTIONAL) if name in fields]
    return Figures(images, {name: _interval(f"{name!r} of {precision}", fields[name]) for name in names})


def _interval(what: str, value: Any) -> Interval:
    if not isinstance(value, list) or len(value) != 3 or not all(type(each) in (int, float) for each in value):
        raise ValueError(f"{what} is not three numbers: value, low, high")
    interval = Interval(*map(float, value))
    if not all(map(math.isfinite, interval)) or not interval.low <= interval.value <= interval.high:
        raise ValueError(f"{what} is no value within its interval")
    return interval
