"""Counts of a run's failures by status and reason, with a few examples of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..records import Status

_REASONS, _EXAMPLES, _LENGTH = 100, 5, 160
# What differs between errors of one kind (file names, addresses, numbers), and what stands for it in the reason.
_VARIABLE = (
    (r"^no such file: (?s:.*)", "no such file"),
    (r"0x[0-9a-fA-F]+", "…"),
    (r"(?:/[^\s/'\"]+){2,}", "…"),
    (r"^a link to (?s:.*); pack", "a link; pack"),
    (r"(HTTP status [0-9]{3})|[0-9]+(?:[,.][0-9]+)*", r"\1…"),  # the status says what is wrong
)


@dataclass(slots=True)
class Reason:
    """One kind of failure.

    Args:
        count: how many images.
        examples: row, path and error of the first few.
    """

    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Failures:
    """The failures of a run. To bound memory, only the first `_REASONS` kinds are told apart.

    Args:
        status: status → number of rows, ok included.
        reasons: (status, reason) → count and examples.
        other: how many failures are of further kinds.
    """

    status: Counter[str] = field(default_factory=Counter)
    reasons: dict[tuple[str, str], Reason] = field(default_factory=dict)
    other: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch with the columns row, path, status and error."""
        for value in batch.column("status").value_counts().to_pylist():
            self.status[value["values"]] += value["counts"]
        failed = pa.Table.from_batches([batch.filter(pc.not_equal(batch.column("status"), Status.OK.value))])
        if not len(failed):
            return
        reason = failed.column("error").cast(pa.string()).fill_null("no reason given")
        for pattern, replacement in _VARIABLE:
            reason = pc.replace_substring_regex(reason, pattern, replacement)
        failed = failed.append_column("reason", pc.utf8_slice_codeunits(reason, 0, _LENGTH))
        for kind in failed.group_by(["status", "reason"], use_threads=False).aggregate([("row", "count")]).to_pylist():
            key = (kind["status"], kind["reason"])
            if key not in self.reasons and len(self.reasons) >= _REASONS:
                self.other += kind["row_count"]
                continue
            entry = self.reasons.setdefault(key, Reason())
            entry.count += kind["row_count"]
            if (wanted := _EXAMPLES - len(entry.examples)) > 0:
                same = pc.and_(pc.equal(failed.column("status"), key[0]), pc.equal(failed.column("reason"), key[1]))
                entry.examples += failed.filter(same).slice(0, wanted).select(["row", "path", "error"]).to_pylist()

    @property
    def total(self) -> int:
        """Return how many rows have no score."""
        return self.status.total() - self.status[Status.OK.value]
