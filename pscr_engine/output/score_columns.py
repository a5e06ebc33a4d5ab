"""The columns that hold a run's scores: one pair of them, or one per bundle in a run of several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from ..errors import UsageError, option
from ..records import result_column

_NAME = re.compile(r"[A-Za-z0-9_]+")


class ScoreColumns(NamedTuple):
    """The columns of one bundle's scores.

    Args:
        model: the bundle's name; "" in a run of one.
        score, std: the columns.
    """

    model: str
    score: str
    std: str

    @property
    def fields(self) -> tuple[pa.Field, pa.Field]:
        """Return both, with their types."""
        return pa.field(self.score, pa.float32()), pa.field(self.std, pa.float32())

    def bundle_facts(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a run's `_run.json` says of the bundle."""
        facts = run["bundles"].get(self.model) if self.model else run.get("bundle")
        return facts if isinstance(facts, Mapping) else {}


def are_names(bundles: object) -> bool:
    """Tell whether what `_run.json` has by bundles' names can be that."""
    return isinstance(bundles, dict) and bool(bundles) and all(map(_NAME.fullmatch, bundles))


def score_columns(run: Mapping[str, Any]) -> list[ScoreColumns]:
    """List the columns with scores of the run whose `_run.json` is given."""
    bundles = run.get("bundles")
    models = list(bundles) if isinstance(bundles, Mapping) else [""]
    return [ScoreColumns(model, result_column("score", model), result_column("score_std", model)) for model in models]


def choose_columns(columns: Sequence[ScoreColumns], wanted: str | None, where: object) -> ScoreColumns:
    """Return the columns whose score is called `wanted`; None for the only ones.

    Raises:
        UsageError: there is no such column, or several where none is named.
    """
    names = [each.score for each in columns]
    if wanted is None and len(columns) == 1:
        return columns[0]
    if wanted in names:
        return columns[names.index(wanted)]
    if wanted is None:
        raise UsageError(
            f"{where}: has {len(columns)} scores ({', '.join(names)}): choose one with "
            f"{option('--score', names[0])}, for example"
        )
    raise UsageError(f"{where}: has no score {wanted}: there is {', '.join(names)} ({option('--score')})")
