"""The recipes of docs/recipes.md: the blocks of each are run as they stand, in processes, on made-up images."""

import os
import shlex
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle
from ..test_documents import ROOT, blocks

PAGE = ROOT / "docs" / "recipes.md"
THRESHOLD = "3.0"  # the page's; a test has one that half of the images reach
NAMES = [f"{index:02d}.{'png' if index % 3 else 'jpg'}" for index in range(20)]


def run(*command, folder):
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, f"{shlex.join(map(str, command))}\n{process.stdout}\n{process.stderr}"


def score(*arguments, folder):
    run(sys.executable, "-m", "pscr_engine", "score", *arguments, folder=folder)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Make images, good and bad, a table of them, a bundle, and one run that all recipes share."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "photos").mkdir()
    for index, name in enumerate(NAMES):
        image = encoded(pixels(72, 64, index), "PNG" if name.endswith("png") else "JPEG")
        (folder / "photos" / name).write_bytes(image[:60] if index == 4 else image)
    # Two rows are equal, and one names no file.
    paths = [f"photos/{name}" for name in [*NAMES, NAMES[7], NAMES[7], "none.png"]]
    models = [*(["a", "b"] * 10), "a", "a", "a"]
    table = {"path": paths, "model": models, "prompt": [f"prompt {index // 4}" for index in range(len(paths))]}
    pq.write_table(pa.table(table), folder / "generated.parquet")
    make_bundle(folder / "model.pscr")
    score("generated.parquet", "--chunk-rows", "8", "--features", folder=folder)
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
    return both, (values[middle - 1] + values[middle]) / 2


def follow(recipe, folder, threshold, then=""):
    """Run the blocks of a recipe in their order; `then` is added to the last program."""
    found = [(language, text) for section, language, text in blocks(PAGE) if section == recipe]
    assert THRESHOLD in found[-1][1]
    for number, (language, text) in enumerate(found, 1):
        if language == "sh":
            words = shlex.split(text)
            assert words[:2] == ["pscr-engine", "score"]
            score(*words[2:], folder=folder)
        else:
            program = text.replace(THRESHOLD, repr(threshold)) + (then if number == len(found) else "")
            run(sys.executable, "-c", program, folder=folder)


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
    assert 2 < len(expected) < 11


def test_a_data_set_of_images_is_filtered_by_score(place, results):
    pytest.importorskip("datasets")
    rows, threshold = results
    follow("Hugging Face datasets", place, threshold)
    kept = pq.read_table(place / "kept-by-datasets.parquet").to_pylist()
    expected = [row for row in rows[: len(NAMES)] if (row["score"] or -9) >= threshold]
    assert [row["score"] for row in kept] == [pytest.approx(row["score"]) for row in expected]
    assert [row["image"]["bytes"] for row in kept] == [(place / row["path"]).read_bytes() for row in expected]
    assert 2 < len(expected) < len(NAMES)


@pytest.mark.parametrize(("recipe", "package"), [("Lance", "lance"), ("Iceberg", "pyiceberg")])
def test_a_run_becomes_a_table(place, results, recipe, package):
    pytest.importorskip(package)
    rows, threshold = results
    then = "\nimport pyarrow.parquet as pq\npq.write_table(kept, 'kept.parquet')\n"
    for _ in range(2):  # once more, as after --retry-failed: rows are replaced, not added
        follow(recipe, place, threshold, then)
    kept = pq.read_table(place / "kept.parquet").sort_by("row").to_pylist()
    columns = ("row", "path", "score")
    expected = [row for row in rows if (row["score"] or -9) >= threshold]
    assert kept == [{column: row[column] for column in columns} for row in expected]
    # Nothing is lost on the way, the bad rows neither.
    whole = {
        "Lance": "import lance\ntable = lance.dataset('scores.lance').to_table()",
        "Iceberg": "table = table.scan().to_arrow()",
    }[recipe]
    follow(recipe, place, threshold, f"\n{whole}\nimport pyarrow.parquet as pq\npq.write_table(table, 'all.parquet')\n")
    table = pq.read_table(place / "all.parquet").sort_by("row")
    given = pq.read_table(place / "scores").sort_by("row")
    assert table.column_names == given.column_names
    assert table.to_pylist() == given.to_pylist()


def test_features_in_lance_can_be_searched(place):
    lance = pytest.importorskip("lance")
    import pyarrow.dataset as ds

    assert 'nearest={"column": "features"' in PAGE.read_text("utf-8")
    table = lance.write_dataset(ds.dataset(place / "scores"), place / "scores.lance")
    features = pq.read_table(place / "scores").sort_by("row")["features"].to_pylist()
    near = table.to_table(["row"], nearest={"column": "features", "q": features[7], "k": 3})
    assert set(near["row"].to_pylist()) == {7, 20, 21}  # the image itself, which is listed three times


def test_every_recipe_is_run():
    here = {"DuckDB", "Polars", "Hugging Face datasets", "Lance", "Iceberg"}
    elsewhere = {"Airflow, Prefect and other orchestrators", "A Hugging Face bucket"}
    assert {section for section, _, _ in blocks(PAGE)} == here | elsewhere

