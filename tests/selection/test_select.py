"""`pscr-engine select`, as a process and from Python."""

import json
import shutil
from datetime import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pscr_engine.errors import OutputError
from pscr_engine.selection.rule import Rule, Top
from pscr_engine.selection.select import select

from ..helpers.images import encoded, pixels
from ..helpers.runs import make_run

SCORES = [3.0, 1.5, None, 4.5, 3.0, 2.0, 3.0, None, 5.0, 3.0]
MODELS = ["a", "b", "a", "b", "a", "b", "a", "b", "a", None]


@pytest.fixture
def run(tmp_path):
    table = {"path": [f"{row}.png" for row in range(10)], "model": MODELS, "seed": range(10), "score": ["theirs"] * 10}
    pq.write_table(pa.table(table), tmp_path / "m.parquet", row_group_size=3)
    return make_run(tmp_path / "scores", tmp_path / "m.parquet", SCORES, stds=[0.1 * row for row in range(10)])


def kept(run, out, **rule):
    select(run, Rule(**rule), out)
    return pq.read_table(out)


def test_it_keeps_the_manifests_columns_and_order(cli, run, tmp_path):
    outcome = cli("select", "scores", "--top", "4", "--out", "kept.parquet")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == (
        "kept 4 of 8 scored images (50.00%); 2 more have no score\n"
        "score >= 3 (of 4 with exactly this score, the first 2 by row)\n"
        "kept.parquet: path, model, seed, manifest_score, score, score_std, row\n"
    )
    table = pq.read_table(tmp_path / "kept.parquet")
    assert table.column("row").to_pylist() == [0, 3, 4, 8]  # of the threes, the first two
    assert table.column("score").to_pylist() == [3.0, 4.5, 3.0, 5.0]
    assert table.column("path").to_pylist() == ["0.png", "3.png", "4.png", "8.png"]
    assert table.column("seed").to_pylist() == [0, 3, 4, 8]
    assert table.column("manifest_score").to_pylist() == ["theirs"] * 4
    assert table.schema.field("seed").type == pa.int64()
    assert [entry.name for entry in tmp_path.iterdir() if "partial" in entry.name] == []


def test_groups_have_thresholds_of_their_own(cli, run, tmp_path):
    outcome = cli("select", "scores", "--per-group", "model", "--top", "50%")
    assert outcome.returncode == 0, outcome.stderr
    assert "by model, 3 groups:\n  a       2 of 4: score >= 3 (of 3 with" in outcome.stdout
    table = pq.read_table(tmp_path / "kept.parquet")
    # a: 3 3 3 5, b: 1.5 4.5 2, and the row without a model; shares are rounded up
    assert table.column("row").to_pylist() == [0, 3, 5, 8, 9]


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        ({"min_score": 3.0}, [0, 3, 4, 6, 8, 9]),
        ({"min_score": 3.0, "max_std": 0.45}, [0, 3, 4]),
        ({"min_score": 3.0, "top": Top(number=1)}, [8]),
        ({"max_std": 0.35, "top": Top.parse("1")}, [3]),
        ({"top": Top.parse("100%")}, [0, 1, 3, 4, 5, 6, 8, 9]),
        ({"top": Top.parse("0.1%")}, [8]),
        ({"top": Top(number=100)}, [0, 1, 3, 4, 5, 6, 8, 9]),
        ({"min_score": 9.0}, []),
    ],
)
def test_rules(run, tmp_path, rule, rows):
    table = kept(run, tmp_path / "out.parquet", **rule)
    assert table.column("row").to_pylist() == rows
    assert table.column_names == ["path", "model", "seed", "manifest_score", "score", "score_std", "row"]


rows = st.lists(
    st.tuples(st.none() | st.sampled_from([0.0, -0.0, 1.0, 2.5]) | st.floats(-9, 9, width=32), st.sampled_from("xyz")),
    min_size=1,
    max_size=40,
)


@pytest.mark.medium
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, st.integers(1, 12) | st.decimals(1, 100, places=1), st.booleans())
def test_it_is_what_pandas_gives(tmp_path_factory, rows, top, grouped):
    folder = tmp_path_factory.mktemp("run")
    frame = pd.DataFrame({"path": [f"{row}" for row in range(len(rows))], "g": [group for _, group in rows]})
    frame.to_csv(folder / "m.csv", index=False)
    scores = [score for score, _ in rows]
    run = make_run(folder / "scores", folder / "m.csv", scores, chunk_rows=5)
    rule = Rule(Top(number=top) if isinstance(top, int) else Top(percent=top), group_column="g" if grouped else None)
    select(run, rule, folder / "kept.parquet")

    frame["score"] = np.array(scores, np.float32)
    frame["row"] = range(len(rows))
    ranked = frame.dropna(subset=["score"]).sort_values(["score", "row"], ascending=[False, True], kind="stable")
    groups = [part for _, part in ranked.groupby("g")] if grouped else [ranked]
    best = [part.head(rule.top.of(len(part))) for part in groups]
    expected = sorted(row for part in best for row in part["row"])
    table = pq.read_table(folder / "kept.parquet")
    assert table.column("row").to_pylist() == expected
    assert table.column("g").to_pylist() == [rows[row][1] for row in expected]


def test_jsonl_keeps_types_and_csv_keeps_text(tmp_path):
    lines = [
        {"path": "0.png", "n": 1, "x": 1, "tags": ["a", "b"], "mixed": 1, "flag": True},
        "not an object",
        {"path": "1.png", "n": 2, "x": 2.5, "mixed": "two", "big": 2**70, "bad": "\ud800"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    run = make_run(tmp_path / "scores", tmp_path / "m.jsonl", [3.0, None, 4.0])
    table = kept(run, tmp_path / "out.parquet", top=Top(number=5))
    assert table.drop_columns(["score_std"]).to_pylist() == [
        {"path": "0.png", "n": 1, "x": 1.0, "tags": '["a", "b"]', "mixed": "1", "flag": True}
        | {"big": None, "bad": None, "score": 3.0, "row": 0},
        {"path": "1.png", "n": 2, "x": 2.5, "tags": None, "mixed": "two", "flag": None}
        | {"big": str(2**70), "bad": "?", "score": 4.0, "row": 2},
    ]
    (tmp_path / "m.csv").write_bytes(b"path,id,note\n0.png,007,\xff\n\n1.png,008\n")
    run = make_run(tmp_path / "csv-scores", tmp_path / "m.csv", [3.0, 4.0])
    table = kept(run, tmp_path / "csv.parquet", min_score=0)
    assert table.column("id").to_pylist() == ["007", "008"]
    assert table.column("note").to_pylist() == ["\ufffd", None]


def test_images_in_the_manifest_are_kept_as_they_are(tmp_path):
    images = [encoded(pixels(8, 8, seed)) for seed in range(6)]
    structs = [{"bytes": image, "path": None} for image in images]
    dictionary = pa.array(["a", "b", "a", "b", "a", "c"]).dictionary_encode()
    pq.write_table(pa.table({"image": structs, "kind": dictionary}), tmp_path / "m.parquet", row_group_size=2)
    run = make_run(tmp_path / "scores", tmp_path / "m.parquet", [1, 2, 3, 4, 5, 6])
    table = kept(run, tmp_path / "out.parquet", top=Top(number=2), group_column="kind")
    assert table.column("row").to_pylist() == [1, 2, 3, 4, 5]
    assert [image["bytes"] for image in table.column("image").to_pylist()] == images[1:]
    assert table.column("kind").to_pylist() == ["b", "a", "b", "a", "c"]


def test_large_rows_are_taken_and_written_a_few_at_a_time(tmp_path, monkeypatch):
    images = [b"%04d" % row * 1250 for row in range(300)]
    pq.write_table(pa.table({"image": images}), tmp_path / "m.parquet")
    run = make_run(tmp_path / "scores", tmp_path / "m.parquet", [float(row) for row in range(300)], chunk_rows=200)
    monkeypatch.setattr("pscr_engine.selection.kept_table._GROUP_BYTES", 20_000)
    table = kept(run, tmp_path / "out.parquet", top=Top(number=290))
    assert table.column("image").to_pylist() == images[10:]
    written = pq.read_metadata(tmp_path / "out.parquet")
    assert {written.row_group(group).num_rows for group in range(1, written.num_row_groups)} <= set(range(1, 8))


def test_a_list_of_files_gives_paths(cli, tmp_path):
    for row in range(5):
        (tmp_path / f"{row}.png").write_bytes(encoded(pixels(8, 8)))
    make_run(tmp_path / "scores", tmp_path, [1, 2, 3, 4, 5])
    assert cli("select", "--top", "40%").returncode == 0
    assert pq.read_table(tmp_path / "kept.parquet").column_names == ["path", "score", "score_std", "row"]
    assert pq.read_table(tmp_path / "kept.parquet").column("path").to_pylist() == ["3.png", "4.png"]
    refused = cli("select", "--top", "1", "--per-group", "model")
    assert refused.returncode == 2
    assert "a list of files has no columns" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scores"], "say what to keep: --top 10%"),
        (["scores", "--top", "0"], "--top 0: must be a number of images"),
        (["scores", "--top", "101%"], "--top 101%: must be"),
        (["scores", "--top", "ten"], "--top ten: must be"),
        (["scores", "--min-score", "nan"], "--min-score nan: must be a finite number"),
        (["scores", "--min-score", "3", "--per-group", "model"], "--per-group needs --top"),
        (["scores", "--top", "1", "--per-group", "modle"], "no column 'modle' (columns: path, model, seed, score)"),
        (["nothing", "--top", "1"], "nothing: no such folder; name the folder that pscr-engine score wrote"),
        ([".", "--top", "1"], "no _run.json in it"),
        (["scores", "--top", "1", "--out", "m.parquet"], "m.parquet: is the manifest"),
        (["scores", "--top", "1", "--out", "other.parquet"], "is there already, and no earlier selection"),
        (["scores", "--top", "1", "--out", "scores"], "is a folder"),
        (["scores", "--top", "1", "--out", "scores/part-000009.parquet"], "named like a part"),
        (["scores", "--top", "1", "--out", "no/kept.parquet"], "no: no such folder"),
        (["scores", "--top", "1", "--manifest", "gone.csv"], "gone.csv: no such file"),
        (["scores", "--top", "1", "--manifest", "changed.parquet"], "not the list that was scored"),
    ],
)
def test_what_cannot_be_done_is_one_line(cli, run, tmp_path, arguments, message):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    pq.write_table(pa.table({"path": ["x.png"]}), tmp_path / "changed.parquet")
    before = sorted(tmp_path.rglob("*"))
    outcome = cli("select", *arguments)
    assert outcome.returncode == 2, outcome.stderr
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unfinished_run_is_refused_unless_asked(cli, run, tmp_path):
    (run / "part-000001.parquet").unlink()
    refused = cli("select", "scores", "--top", "3")
    assert refused.returncode == 2
    assert "this run is not complete" in refused.stderr
    counted = cli("select", "scores", "--top", "3", "--allow-unfinished", "--dry-run")
    assert counted.stdout.startswith("kept 3 of 5 scored images (60.00%); 1 more have no score\n")
    assert not (tmp_path / "kept.parquet").exists()
    assert cli("select", "scores", "--top", "3", "--allow-unfinished").returncode == 0
    assert pq.read_table(tmp_path / "kept.parquet").column("row").to_pylist() == [0, 3, 8]
    assert cli("select", "scores", "--top", "1", "--allow-unfinished").returncode == 0  # an earlier selection
    assert pq.read_table(tmp_path / "kept.parquet").num_rows == 1


def test_a_manifest_that_has_moved_is_told_or_found(cli, run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "m.parquet").rename(tmp_path / "elsewhere" / "m.parquet")
    refused = cli("select", "scores", "--top", "3")
    assert refused.returncode == 2
    assert "say where the manifest is now with --manifest" in refused.stderr
    assert cli("select", "scores", "--top", "3", "--manifest", "elsewhere/m.parquet").returncode == 0


def test_a_relative_manifest_is_found_from_another_folder(cli, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    pd.DataFrame({"path": ["a.png", "b.png"]}).to_csv("m.csv", index=False)
    from pathlib import Path

    make_run(Path("scores"), "m.csv", [1, 2])
    assert cli("select", "work/scores", "--top", "1").returncode == 0  # runs in tmp_path
    assert pq.read_table(tmp_path / "kept.parquet").column("path").to_pylist() == ["b.png"]


def test_a_column_that_is_there_twice_is_refused(cli, tmp_path):
    (tmp_path / "m.csv").write_text("path,a,a\n0.png,1,2\n")
    make_run(tmp_path / "scores", tmp_path / "m.csv", [1])
    refused = cli("select", "--top", "1")
    assert refused.returncode == 2
    assert "several columns named 'a'" in refused.stderr


def test_csv_tsv_and_json_lines_are_what_their_names_say(run, tmp_path):
    import csv

    for name, delimiter in (("kept.csv", ","), ("kept.TSV", "\t")):
        for _ in range(2):  # an earlier selection is replaced
            select(run, Rule(Top(number=4)), tmp_path / name)
        with (tmp_path / name).open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter=delimiter))
        assert list(rows[0]) == ["path", "model", "seed", "manifest_score", "score", "score_std", "row"]
        assert [row["row"] for row in rows] == ["0", "3", "4", "8"]
        assert [float(row["score"]) for row in rows] == [3.0, 4.5, 3.0, 5.0]
        assert np.float32(rows[1]["score_std"]) == np.float32(0.3)
    for _ in range(2):
        select(run, Rule(Top(number=100)), tmp_path / "kept.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert lines[-1] == {
        "path": "9.png",
        "model": None,
        "seed": 9,
        "manifest_score": "theirs",
        "score": 3.0,
        "score_std": pytest.approx(0.9),
        "row": 9,
    }
    assert [entry.name for entry in tmp_path.iterdir() if "partial" in entry.name] == []


def test_a_selection_without_rows_can_be_replaced(run, tmp_path):
    for name in ("none.csv", "none.jsonl"):
        for _ in range(2):
            select(run, Rule(min_score=9.0), tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.csv", "path,score\na.png,1\n"),
        ("mine.csv", "\udcff"),
        ("mine.jsonl", '{"path": "a.png"}\n'),
        ("mine.jsonl", "[1]\n"),
        ("mine.jsonl", "null\n"),
        ("mine.parquet", "score,score_std,row\n"),
    ],
)
def test_no_other_file_is_replaced(run, tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(OutputError, match="is there already, and no earlier selection"):
        select(run, Rule(Top(number=1)), tmp_path / name)
    assert (tmp_path / name).read_bytes() == content.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kept.xlsx", r"no table ends in \.xlsx; choose another out, in \.parquet, "),
        ("kept", "its name does not say which kind of table it is"),
        ("kept.csv.gz", r"no table ends in \.gz"),
    ],
)
def test_files_of_other_kinds_are_refused(run, tmp_path, name, message):
    with pytest.raises(OutputError, match=message):
        select(run, Rule(Top(number=1)), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_what_csv_has_no_form_for_is_said_before_the_work(tmp_path):
    when = [datetime(2026, 1, 2, 3, 4, 5), None]
    columns = {
        "path": ["a.png", "b.png"],
        "tags": [["x", "y"], []],
        "bytes": pa.array([b"\x00\xff", None]),
        "when": when,
        "nan": [float("nan"), 1.5],
        "kind": pa.array(["k", None]).dictionary_encode(),
        "price": [Decimal("1.10"), None],
    }
    for taken, kept_columns in ((["tags"], 0), (["bytes"], 0), ([], 5)):
        table = pa.table({name: columns[name] for name in (*taken, "path", "when", "nan", "kind", "price")})
        pq.write_table(table, tmp_path / "m.parquet")
        shutil.rmtree(tmp_path / "scores", ignore_errors=True)
        run = make_run(tmp_path / "scores", tmp_path / "m.parquet", [1.0, 2.0])
        if kept_columns:
            select(run, Rule(Top(number=2)), tmp_path / "kept.csv")
            assert (tmp_path / "kept.csv").read_text().splitlines()[1].startswith('"a.png",2026-01-02 03:04:05')
        else:
            with pytest.raises(OutputError, match=rf"column '{taken[0]}' holds .*, which \.csv has no form for"):
                select(run, Rule(Top(number=2)), tmp_path / "kept.csv")
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    shutil.rmtree(tmp_path / "scores")
    select(make_run(tmp_path / "scores", tmp_path / "m.parquet", [1.0, 2.0]), Rule(Top(number=2)), tmp_path / "k.jsonl")
    first, second = map(json.loads, (tmp_path / "k.jsonl").read_text().splitlines())
    assert (first["tags"], first["bytes"], first["nan"], first["kind"]) == (["x", "y"], "AP8=", None, "k")
    assert (first["when"], first["price"], second["when"]) == ("2026-01-02 03:04:05", "1.10", None)
