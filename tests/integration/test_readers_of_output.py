"""The output in the programs that users open it with, and its join with the manifest."""

import os

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("readers")
    make_bundle(folder / "model.pscr")
    names = []
    for index in range(300):
        names.append(f"{index:03d}.png")
        if index % 7:
            (folder / names[-1]).write_bytes(encoded(pixels(40, 40, index)))
    frame = pd.DataFrame(
        {"path": names, "prompt": [f"prompt {index}" for index in range(300)], "id": range(1000, 1300)}
    )
    frame.to_parquet(folder / "m.parquet")
    command = [
        sys.executable,
        "-m",
        "pscr_engine",
        "score",
        "--manifest",
        "m.parquet",
        "--features",
        "--chunk-rows",
        "64",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def check(joined):
    """Check rows of (row, path of the scores, path of the manifest, id, prompt, status), in any order."""
    rows = sorted(joined)
    assert [row[0] for row in rows] == list(range(300))
    for row, scored, listed, id_, prompt, status in rows:
        assert scored == listed == f"{row:03d}.png"
        assert (id_, prompt) == (1000 + row, f"prompt {row}")
        assert status == ("ok" if row % 7 else "missing")


def test_pandas(place):
    scores = pd.concat(map(pd.read_parquet, sorted((place / "scores").glob("part-*.parquet"))))
    manifest = pd.read_parquet(place / "m.parquet")
    joined = scores.merge(manifest, left_on="row", right_index=True, suffixes=("", "_m"))
    check(joined[["row", "path", "path_m", "id", "prompt", "status"]].itertuples(index=False, name=None))
    assert scores["score"].isna().sum() == (scores["status"] != "ok").sum() == 43
    assert str(scores["score"].dtype) == "float32"


def test_duckdb(place):
    query = """
        SELECT s.row, s.path, m.path, s.id, m.prompt, s.status
        FROM 'scores/part-*.parquet' s
        JOIN (SELECT *, file_row_number AS row FROM read_parquet('m.parquet', file_row_number = true)) m USING (row)
    """
    here = os.getcwd()
    os.chdir(place)
    try:
        check(duckdb.sql(query).fetchall())
        assert duckdb.sql("SELECT count(*) FROM 'scores/part-*.parquet' WHERE score IS NULL").fetchall() == [(43,)]
    finally:
        os.chdir(here)


def test_polars(place):
    scores = pl.scan_parquet(place / "scores" / "part-*.parquet")
    manifest = pl.scan_parquet(place / "m.parquet").with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    joined = scores.join(manifest, on="row", suffix="_m").select("row", "path", "path_m", "id", "prompt", "status")
    check(joined.collect().rows())
    assert scores.select("features").collect_schema()["features"] == pl.Array(pl.Float32, 8)


def test_hugging_face_datasets(place, tmp_path):
    scores = datasets.load_dataset(
        "parquet", data_files=str(place / "scores" / "part-*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert scores.num_rows == 300
    manifest = pd.read_parquet(place / "m.parquet")
    check(
        (
            row["row"],
            row["path"],
            manifest["path"][row["row"]],
            row["id"],
            manifest["prompt"][row["row"]],
            row["status"],
        )
        for row in scores
    )


def test_pyarrow_takes_the_folder_whole(place):
    """Read all parts as one dataset, beside run.json and _SUCCESS."""
    table = ds.dataset(sorted(map(str, (place / "scores").glob("part-*.parquet")))).to_table()
    assert table.num_rows == 300
