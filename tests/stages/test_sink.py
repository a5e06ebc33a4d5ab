import numpy as np
import pyarrow as pa
import pytest

from pscr_engine.errors import PscrError
from pscr_engine.records import Query, Status
from pscr_engine.stages.sink import in_order, merge, output_schema, to_table


def scored(row, **fields):
    return Query(row, path=f"{row}.png", score=1.5, score_std=0.5, width=4, height=3, **fields)


def failed(row, **fields):
    query = Query(row, **fields)
    query.fail(Status.MISSING, "no such file")
    return query


def test_rows_are_sorted_and_typed():
    schema = output_schema(pa.int32(), None)
    table = in_order([to_table([scored(2, id=20), failed(0, id=None)], schema), to_table([scored(1, id=10)], schema)])
    assert table.schema.names == [
        "row",
        "id",
        "path",
        "score",
        "score_std",
        "status",
        "error",
        "width",
        "height",
    ]
    assert table.column("row").to_pylist() == [0, 1, 2]
    assert table.column("id").to_pylist() == [None, 10, 20]
    assert table.column("score").to_pylist() == [None, 1.5, 1.5]
    assert table.schema.field("score").type == pa.float32()
    assert table.column("status").to_pylist() == ["missing", "ok", "ok"]


def test_features_are_a_list_of_fixed_size():
    first = scored(0)
    first.features = np.arange(3, dtype=np.float32)
    schema = output_schema(None, 3)
    table = in_order([to_table([failed(1)], schema), to_table([first], schema)])
    assert table.column("features").to_pylist() == [[0, 1, 2], None]
    assert table.schema.field("features").type == pa.list_(pa.float32(), 3)


def test_a_row_that_comes_twice_is_an_error():
    tables = [to_table(queries, output_schema(None, None)) for queries in ([scored(3), scored(4)], [scored(3)])]
    with pytest.raises(PscrError, match="row 3 came out of the pipeline twice"):
        in_order(tables)


def test_merge_replaces_rows_in_place():
    schema = output_schema(None, None)
    before = to_table([scored(4), failed(5), failed(6)], schema)
    after = merge(before, to_table([scored(5)], schema))
    assert after.column("row").to_pylist() == [4, 5, 6]
    assert after.column("status").to_pylist() == ["ok", "ok", "missing"]
    assert after.schema == schema


def test_text_that_is_not_utf8_can_be_written():
    query = scored(0)
    query.path = "caf\udce9.png"
    assert to_table([query], output_schema(None, None)).column("path").to_pylist() == ["caf\ufffd.png"]
