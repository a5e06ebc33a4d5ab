"""The output in the programs that users open it with, and its join with the manifest."""

import os
import shutil
import subprocess
import sys

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle


@pytest.fixture(scope="module")
def place(tmp_path_factory):
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


@pytest.fixture(params=["as it is", "with what a crash leaves"])
def folder(place, tmp_path, request):
    """Copy the output folder, which is given to readers whole."""
    folder = tmp_path / "scores"
    shutil.copytree(place / "scores", folder)
    if request.param != "as it is":
        (folder / ".part-000009.parquet.partial-12").write_bytes(b"PAR1 half")
        (folder / "._run.json.partial-12").write_bytes(b"{")
        (folder / "_process-0123456789abcdef").write_text('{"processes": []}')
        (folder / ".lock-0-of-2").write_text("process 1 on here")
    return folder


def test_names_that_are_no_data_are_passed_over(folder):
    """Hold to the rule of Hadoop and Spark: what begins with "_" or "." is passed over, all else must be Parquet."""
    names = [name for name in os.listdir(folder) if not name.startswith(("_", "."))]
    assert len(names) == 5
    for name in names:
        assert pq.read_metadata(folder / name).num_rows > 0
    assert {"_run.json", "_SUCCESS"} < set(os.listdir(folder))


def test_pyarrow_takes_the_folder_whole(folder):
    assert pq.read_table(folder).num_rows == ds.dataset(folder).count_rows() == 300
    assert sorted(pq.read_table(str(folder), columns=["row"]).column("row").to_pylist()) == list(range(300))


def test_pandas_takes_the_folder_whole(folder):
    assert sorted(pd.read_parquet(folder)["row"]) == list(range(300))


def test_duckdb_takes_the_folder_whole(folder):
    for what in (folder, folder / "*.parquet"):
        assert duckdb.sql(f"SELECT count(*), max(row) FROM read_parquet('{what}')").fetchall() == [(300, 299)]


def test_polars_takes_the_folder_whole(folder):
    """Tell Polars what to pass over, or what to take."""
    for scan in (
        pl.scan_parquet(folder, hidden_file_prefix=["_", "."]),
        pl.scan_parquet(folder / "*.parquet"),
    ):
        assert scan.select(pl.len()).collect().item() == 300


def test_hugging_face_datasets_takes_the_folder_whole(folder, tmp_path):
    for arguments in ({"path": str(folder)}, {"path": "parquet", "data_files": str(folder / "*.parquet")}):
        scores = datasets.load_dataset(**arguments, split="train", cache_dir=str(tmp_path / "cache"))
        assert sorted(scores["row"]) == list(range(300))


@pytest.mark.parametrize("folder", ["with what a crash leaves"], indirect=True)
def test_ray_data_takes_the_folder_whole(folder):
    program = f"""
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False)
print("rows:", sorted(row["row"] for row in ray.data.read_parquet({str(folder)!r}).take_all()))
"""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert f"rows: {list(range(300))}" in done.stdout, done.stderr


def test_one_part_is_enough_for_every_reader(place, tmp_path):
    """Guess the format as Hugging Face's datasets do, by the most frequent extension: one .parquet and one .json."""
    folder = tmp_path / "scores"
    shutil.copytree(place / "scores", folder, ignore=shutil.ignore_patterns("part-00000[1-9].parquet"))
    assert datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache")).num_rows == 64
    assert pq.read_table(folder).num_rows == 64
