"""`pscr-engine score` on a real S3 endpoint: whole commands, real processes."""

from __future__ import annotations

import io
import json
import re
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..images import encoded, pixels
from ..tiny import expected_score, make_bundle
from .servers import now_and_then

ROWS = 60


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "model.pscr")


def upload_images(bucket, count=20):
    for index in range(count):
        bucket.put(f"images/{index:03d}.png", encoded(pixels(40, 50, index)))


def parquet(columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=16)
    return buffer.getvalue()


def table_at(bucket, prefix):
    parts = [key for key in bucket.keys(prefix) if key.endswith(".parquet")]
    return pa.concat_tables(pq.read_table(io.BytesIO(bucket.get(key))) for key in parts).to_pylist()


def assert_scores(rows, model):
    for row in rows:
        index = int(re.search(r"(\d+)\.png", row["path"])[1])
        assert row["score"] == pytest.approx(expected_score(model, pixels(40, 50, index)), abs=1e-5)


def test_all_of_a_run_on_a_store(command, bucket, model, tmp_path):
    upload_images(bucket)
    for file in model.path.iterdir():
        bucket.put(f"models/tiny/{file.name}", file.read_bytes())
    names = [f"../images/{row % 20:03d}.png" for row in range(ROWS)]
    bucket.put("lists/m.parquet", parquet({"path": names, "id": range(ROWS)}))
    arguments = ["score", "--manifest", f"{bucket.uri}/lists/m.parquet", "--bundle", f"{bucket.uri}/models/tiny"]
    arguments += ["--out", f"{bucket.uri}/scores", "--chunk-rows", 25]
    outcome = command(*arguments)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.splitlines()[-1] == f"scores: {bucket.uri}/scores/part-*.parquet"
    assert bucket.keys("scores") == [
        f"scores/{name}"
        for name in ("_SUCCESS", "part-000000.parquet", "part-000001.parquet", "part-000002.parquet", "run.json")
    ]
    rows = table_at(bucket, "scores")
    assert [row["row"] for row in rows] == [row["id"] for row in rows] == list(range(ROWS))
    assert_scores(rows, model)
    assert json.loads(bucket.get("scores/_SUCCESS"))["status"] == {"ok": ROWS}
    assert [folder.name for folder in (tmp_path / "cache/pscr-engine/bundles").iterdir() if folder.is_dir()] == [
        model.digest
    ]
    again = command(*arguments)
    assert again.returncode == 0
    assert "is complete already" in again.stderr
    other = command(*arguments[:-1], 30)
    assert other.returncode == 2
    assert "holds a run with another chunk rows (25, now 30)" in other.stderr
