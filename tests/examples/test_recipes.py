"""The recipes of docs/recipes.md: the blocks of each are run as they stand, in processes, on made-up images."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle
from ..test_documents import ROOT, blocks

PAGE = ROOT / "docs" / "recipes.md"
THRESHOLD = "3.0"  # the page's; a test has one that half of the images reach
NAMES = [f"{index:02d}.{'png' if index % 3 else 'jpg'}" for index in range(20)]
DAMAGED = 4
LISTED_AGAIN = 9  # twice more, at the end of the table


# Runs blocks one after another, each with no names but its own, and writes down the tables that they leave. In one
# process, since some of these libraries take seconds to import.
RUNNER = """
import json, subprocess, sys
import pyarrow as pa, pyarrow.parquet as pq
blocks, then = json.load(sys.stdin)
for language, text in blocks:
    if language == "sh":
        subprocess.run(text, check=True)
        continue
    names = {}
    exec(compile(text, "docs/recipes.md", "exec"), names)
    for name in {"kept", "alike"} & names.keys():
        if isinstance(names[name], pa.Table):
            pq.write_table(names[name], f"{name}.parquet")
exec(then, names)
"""


def run(*command, folder, given=None):
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, f"{shlex.join(map(str, command))}\n{process.stdout}\n{process.stderr}"


def follow(recipe, folder, threshold, then="", instead=("", "")):
    """Run the blocks of a recipe in their order, with this threshold, and then `then` with the names of the last one.

    `instead`: what to replace in the first block, and by what.
    """
    found = [(language, text) for section, language, text in blocks(PAGE) if section == recipe]
    assert sum(text.count(THRESHOLD) for _, text in found) == 1
    assert instead[0] in found[0][1]
    found[0] = found[0][0], found[0][1].replace(*instead)
    steps = []
    for language, text in found:
        if language == "sh":
            words = shlex.split(text)
            assert words[:2] == ["pscr-engine", "score"]
            steps.append((language, [sys.executable, "-m", "pscr_engine", *words[1:]]))
        else:
            steps.append((language, text.replace(THRESHOLD, repr(threshold))))
    run(sys.executable, "-c", RUNNER, folder=folder, given=json.dumps([steps, then]))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Make images, good and bad, a table of them, a bundle, and one run that all recipes share."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "photos").mkdir()
    for index, name in enumerate(NAMES):
        image = encoded(pixels(72, 64, index), "PNG" if name.endswith("png") else "JPEG")
        (folder / "photos" / name).write_bytes(image[:60] if index == DAMAGED else image)
    # Three rows are equal, and one names no file.
    paths = [f"photos/{name}" for name in [*NAMES, NAMES[LISTED_AGAIN], NAMES[LISTED_AGAIN], "none.png"]]
    models = [*(["b", "a"] * 10), "a", "a", "a"]
    prompts = [f"prompt {index // 4}" for index in range(20)]
    prompts += [prompts[LISTED_AGAIN], prompts[LISTED_AGAIN], "prompt 9"]
    pq.write_table(pa.table({"path": paths, "model": models, "prompt": prompts}), folder / "generated.parquet")
    make_bundle(folder / "model.pscr")
    command = [sys.executable, "-m", "pscr_engine", "score", "generated.parquet", "--chunk-rows", "8", "--features"]
    run(*command, folder=folder)
    return folder


@pytest.fixture
def place(scored, tmp_path):
    """Return a copy of the shared folder."""
    return shutil.copytree(scored, tmp_path / "place")


@pytest.fixture
def results(scored):
    """Return the shared run's rows with the table's, and a threshold that half of those with a score reach."""
    rows = pq.read_table(scored / "scores").sort_by("row").to_pylist()
    given = pq.read_table(scored / "generated.parquet").to_pylist()
    both = [{**mine, **theirs} for mine, theirs in zip(rows, given, strict=True)]
    values = sorted({row["score"] for row in both if row["score"] is not None})
    middle = len(values) // 2
    assert [row["status"] for row in both if row["score"] is None] == ["undecodable", "missing"]
    # No score is so near that it matters whether a library compares in single or in double precision.
    assert values[middle] - values[middle - 1] > 1e-3
    return both, (values[middle - 1] + values[middle]) / 2


@pytest.mark.medium
@pytest.mark.parametrize(("recipe", "name"), [("DuckDB", "duckdb"), ("Polars", "polars")])
def test_a_table_is_filtered_by_score(place, results, recipe, name):
    pytest.importorskip(name)
    rows, threshold = results
    follow(recipe, place, threshold)
    kept = pq.read_table(place / f"kept-by-{name}.parquet")
    columns = ["path", "model", "prompt", "score", "score_std"]
    expected = [row for row in rows if row["model"] == "a" and (row["score"] or -9) >= threshold]
    assert kept.column_names == columns
    assert kept.to_pylist() == [
        {column: pytest.approx(row[column]) if "score" in column else row[column] for column in columns}
        for row in expected
    ]
    assert {LISTED_AGAIN, 20, 21} <= {row["row"] for row in expected}
    assert 2 < len(expected) < 12


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["paths", "bytes"])
def test_a_data_set_of_images_is_filtered_by_score(place, results, kind):
    pytest.importorskip("datasets")
    rows, threshold = results
    instead = ("", "")
    if kind == "bytes":  # as in data sets of the Hub
        images = [{"bytes": (place / row["path"]).read_bytes(), "path": None} for row in rows[: len(NAMES)]]
        metadata = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})}
        table = pa.table({"image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))})
        pq.write_table(table.replace_schema_metadata(metadata), place / "hub.parquet")
        shutil.rmtree(place / "photos")
        instead = '"imagefolder", data_dir="photos"', '"parquet", data_files="hub.parquet"'
    follow("Hugging Face datasets", place, threshold, instead=instead)
    kept = pq.read_table(place / "kept-by-datasets.parquet")
    assert kept.column_names == ["image", "score", "score_std"]
    expected = [row for row in rows[: len(NAMES)] if (row["score"] or -9) >= threshold]
    for column in ("score", "score_std"):
        assert kept[column].to_pylist() == [pytest.approx(row[column]) for row in expected]
    if kind == "bytes":
        wanted = [images[row["row"]] for row in expected]
    else:
        wanted = [{"bytes": None, "path": str(place / row["path"])} for row in expected]
    assert kept["image"].to_pylist() == wanted
    assert 2 < len(expected) < len(NAMES)


@pytest.mark.slow
def test_a_run_becomes_a_lance_table_that_can_be_searched(place, results):
    lance = pytest.importorskip("lance")
    rows, threshold = results
    lance.write_dataset(pa.table({"row": [0, 1]}), place / "scores.lance")  # something older, which is replaced
    follow("Lance", place, threshold)
    assert_kept(place, rows, threshold)
    assert_whole(lance.dataset(place / "scores.lance").to_table(), pq.read_table(place / "scores"))
    assert f"row = {LISTED_AGAIN}" in PAGE.read_text("utf-8")
    alike = pq.read_table(place / "alike.parquet").to_pylist()
    mine = np.array(rows[LISTED_AGAIN]["features"])
    distances = {
        row["row"]: ((np.array(row["features"]) - mine) ** 2).sum() for row in rows if row["features"] is not None
    }
    # The image itself, which is listed three times, and then the others by their distance.
    assert {row["row"] for row in alike[:3]} == {LISTED_AGAIN, 20, 21}
    assert [row["_distance"] for row in alike] == pytest.approx(sorted(distances.values())[:10], abs=1e-4)
    assert [row["_distance"] for row in alike] == pytest.approx([distances[row["row"]] for row in alike], abs=1e-4)
    assert [row["path"] for row in alike] == [rows[row["row"]]["path"] for row in alike]


@pytest.mark.slow
def test_a_run_becomes_an_iceberg_table(place, results):
    pytest.importorskip("pyiceberg")
    rows, threshold = results
    given = pq.read_table(place / "scores")
    commits = "commits = len(table.metadata.metadata_log); assert commits == {}, commits\n"  # those after its creation
    follow("Iceberg", place, threshold, commits.format(1))
    assert_kept(place, rows, threshold)
    (place / "kept.parquet").unlink()
    read_without_the_run = """
import shutil
import pyarrow.parquet as pq
shutil.rmtree("scores")
catalog = load_catalog("local", **catalog.properties)
pq.write_table(catalog.load_table("quality.scores").scan().to_arrow(), "all.parquet")
"""
    follow("Iceberg", place, threshold, commits.format(2) + read_without_the_run)
    assert_kept(place, rows, threshold)
    assert not (place / "scores").exists()
    assert_whole(pq.read_table(place / "all.parquet"), given)


def assert_kept(place, rows, threshold):
    kept = pq.read_table(place / "kept.parquet")
    expected = [row for row in rows if (row["score"] or -9) >= threshold]
    assert kept.column_names == ["row", "path", "score"]
    assert kept.sort_by("row").to_pylist() == [{name: row[name] for name in kept.column_names} for row in expected]
    assert 2 < len(expected) < len(rows) - 2


def assert_whole(table, given):
    """Check that nothing is lost on the way, the bad rows neither."""
    assert table.column_names == given.column_names
    assert table.sort_by("row").to_pylist() == given.sort_by("row").to_pylist()


def test_every_recipe_is_run():
    here = {"DuckDB", "Polars", "Hugging Face datasets", "Lance", "Iceberg"}
    elsewhere = {"Airflow, Prefect and other orchestrators", "A Hugging Face bucket"}
    assert {section for section, _, _ in blocks(PAGE)} == here | elsewhere
