"""Sink: from scored queries to the table of a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from ..errors import PscrError
from ..manifests.unicode import utf8
from ..records import STAMP_BYTES, Query, Status, result_column, result_of_column

STAMP = pa.field("stamp", pa.binary(STAMP_BYTES))
SHA256 = pa.field("sha256", pa.binary(32))
TAKEN_FROM = pa.field("taken_from", pa.string())
DECISION = pa.field("decision", pa.string())
PATCHES_USED = pa.field("patches_used", pa.int16())
EARLY = (DECISION, PATCHES_USED, pa.field("score_low", pa.float32()), pa.field("score_high", pa.float32()))
"""What a run that decides by some of the patches has beside its scores."""


def output_schema(
    id_type: pa.DataType | None,
    feature_size: int | None,
    *more: pa.Field,
    models: Mapping[str, int | None] | None = None,
) -> pa.Schema:
    """Return the columns of a part.

    Args:
        id_type: Arrow type of the manifest's identifiers; None if it has none.
        feature_size: C if features are written; None if not.
        *more: columns by which later runs know images, and of what is taken over from earlier ones.
        models: name → feature size of each model, in place of `feature_size`, if there are several.
    """
    sizes = {"": feature_size} if models is None else models
    fields = [pa.field("row", pa.int64(), nullable=False)]
    if id_type is not None:
        fields.append(pa.field("id", id_type))
    fields.append(pa.field("path", pa.string()))
    fields += [pa.field(result_column(kind, model), pa.float32()) for model in sizes for kind in ("score", "score_std")]
    fields += [
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
    fields += [
        pa.field(result_column("features", model), pa.list_(pa.float32(), size))
        for model, size in sizes.items()
        if size is not None
    ]
    return pa.schema([*fields, *more])


def to_table(queries: Sequence[Query], schema: pa.Schema) -> pa.Table:
    """Make a table of one row per query."""
    return pa.table([_column(field, queries) for field in schema], schema=schema)


def in_order(tables: Sequence[pa.Table]) -> pa.Table:
    """Join tables, and sort their rows by `row`.

    Raises:
        PscrError: a row is there twice.
    """
    table = pa.concat_tables(tables).combine_chunks()
    rows = table.column("row").to_numpy()
    if (rows[1:] < rows[:-1]).any():
        table = table.sort_by("row")
        rows = table.column("row").to_numpy()
    if (twice := rows[1:][rows[1:] == rows[:-1]]).size:
        raise PscrError(f"row {twice[0]} came out of the pipeline twice")
    return table


def merge(table: pa.Table, fresh: pa.Table) -> pa.Table:
    """Put the rows of `fresh` in place of those of `table` with the same `row`."""
    keep = pa.compute.invert(pa.compute.is_in(table.column("row"), value_set=fresh.column("row").combine_chunks()))
    return pa.concat_tables([table.filter(keep), fresh]).sort_by("row")


def _column(field: pa.Field, queries: Sequence[Query]) -> pa.Array:
    if field in EARLY:  # before results: score_low is none of a bundle called low
        return pa.array([query.early and getattr(query.early, field.name) for query in queries], field.type)
    if (found := result_of_column(field.name)) is not None and found[1]:
        # A row has the scores of all models or none.
        nothing, (kind, model) = Query(-1), found
        ok = Status.OK
        queries = [(query.results or {}).get(model, nothing) if query.status is ok else nothing for query in queries]
        return _column(field.with_name(kind), queries)
    match field.name:
        case "path" | "error" | "taken_from":
            return pa.array([utf8(getattr(query, field.name)) for query in queries], field.type)
        case "status":
            return pa.array([query.status.value for query in queries], field.type)
        case "id" if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            return pa.array([utf8(query.id) for query in queries], field.type)
        case "features":
            return _features(field, queries)
    return pa.array([getattr(query, field.name) for query in queries], field.type)


def _features(field: pa.Field, queries: Sequence[Query]) -> pa.Array:
    C = field.type.list_size
    missing = np.zeros(C, np.float32)
    stacked = np.stack([missing if query.features is None else query.features for query in queries])
    mask = pa.array([query.features is None for query in queries])
    return pa.FixedSizeListArray.from_arrays(pa.array(stacked.ravel()), C, mask=mask)
