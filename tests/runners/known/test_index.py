"""The index of known images, without scoring."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from pscr_engine.errors import OutputError, PscrError
from pscr_engine.output.parts import Parts
from pscr_engine.records import Status
from pscr_engine.runners.known import index as index_module
from pscr_engine.runners.known.earlier_run import EarlierRun
from pscr_engine.runners.known.index import Index, build
from pscr_engine.runners.known.keys import id_keys, keys_of, keys_of_binary
from pscr_engine.stages.sink import SHA256, STAMP, output_schema

C = 3


def digest(number):
    return hashlib.sha256(str(number).encode()).digest()


def make_run(folder, numbers, *, failed=(), chunk_rows=100, shift=0.0, ids=None):
    """Write a run whose image `number` has that score; its stamp is its digest's beginning."""
    schema = output_schema(None if ids is None else pa.string(), C, STAMP, SHA256)
    folder.mkdir()
    for start in range(0, len(numbers), chunk_rows):
        chosen = numbers[start : start + chunk_rows]
        lines = [
            {
                "row": start + at,
                "id": None if ids is None else ids[start + at],
                "path": str(number),
                "score": None if number in failed else number + shift,
                "score_std": None if number in failed else 0.25,
                "status": "undecodable" if number in failed else "ok",
                "error": f"broken: ü{number}" if number in failed else None,
                "width": None if number in failed else number + 1,
                "height": 7,
                "features": None if number in failed else [number, number + 0.5, -number],
                "stamp": digest(number)[:16],
                "sha256": digest(number),
            }
            for at, number in enumerate(chosen)
        ]
        Parts(folder).write(start // chunk_rows, pa.Table.from_pylist(lines, schema))
    run = {"identity": {"manifest": "csv:1", "chunk_rows": chunk_rows}, "settings": {"columns": {}}}
    (folder / "_run.json").write_text(json.dumps(run))
    (folder / "_SUCCESS").write_text(json.dumps({"rows": len(numbers), "parts": -(-len(numbers) // chunk_rows)}))
    return folder


def built(tmp_path, *folders, by="content", failed=False):
    out = tmp_path / "index"
    out.mkdir()
    build([EarlierRun.open(folder, by) for folder in folders], out, failed=failed, feature_size=C)
    return Index(out, C)


@pytest.mark.parametrize("many", [10, 10**9], ids=["buckets", "one file"])
@pytest.mark.parametrize("by", ["content", "path"])
def test_what_is_known_is_found(tmp_path, monkeypatch, many, by):
    monkeypatch.setattr(index_module, "_MANY_ROWS", many)
    numbers = np.random.default_rng(0).permutation(1000).tolist()
    failed = {5, 6}
    index = built(tmp_path, make_run(tmp_path / "run", numbers, failed=failed), by=by, failed=True)
    assert len(index) == 1000
    asked = [3, 5000, 5, 999, 0, 7777]
    found = index.find(keys_of([digest(number) for number in asked])[0])
    assert [at >= 0 for at in found] == [True, False, True, True, True, False]
    for number, result in zip([3, 5, 999, 0], index.results(found[found >= 0]), strict=True):
        assert bytes(result["stamp"]) == digest(number)[:16]
        if number in failed:
            assert list(Status)[result["status"]] is Status.UNDECODABLE
            assert index.error(result) == f"broken: ü{number}"
            assert index.features(result) is None
            assert result["width"] == -1
        else:
            assert (result["score"], result["score_std"], result["width"]) == (number, 0.25, number + 1)
            assert index.error(result) is None
            assert index.features(result).tolist() == [number, number + 0.5, -number]
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == [
        "errors",
        "features",
        "high",
        "low",
        "results",
    ]


def test_the_first_run_counts_but_a_score_more_than_a_failure(tmp_path):
    first = make_run(tmp_path / "first", [1, 2, 3], failed={2, 3})
    second = make_run(tmp_path / "second", [1, 2, 3, 4], failed={3}, shift=0.5)
    index = built(tmp_path, first, second, failed=True)
    results = index.results(index.find(keys_of([digest(number) for number in (1, 2, 3, 4)])[0]))
    assert results["score"].tolist() == [1.0, 2.5, 0.0, 4.5]
    assert results["run"].tolist() == [0, 1, 0, 1]
    (tmp_path / "ok").mkdir()
    assert len(built(tmp_path / "ok", first, second)) == 3


def test_an_identifier_that_is_there_twice_is_none(tmp_path):
    first = make_run(tmp_path / "first", [1, 2, 3, 4], ids=["a", "b", "b", "c\ufffd"], failed={3})
    second = make_run(tmp_path / "second", [5, 6], ids=["a", "b"])
    index = built(tmp_path, first, second, by="id")
    found = index.find(id_keys(["a", "b", "c"])[0])
    assert [at >= 0 for at in found] == [True, False, False]
    assert index.results(found[:1])["score"].tolist() == [1.0]
    assert not id_keys(["c\ufffd", None, float("nan")])[1].any()


def test_keys_with_the_same_first_half(tmp_path):
    index = built(tmp_path, make_run(tmp_path / "run", list(range(10))))
    high = np.full(10, 7, np.uint64)
    low = np.arange(0, 20, 2).astype(np.uint64)
    index._keys = index._keys._replace(high=high, low=low)
    asked = index._keys._replace(high=np.array([7, 7, 7, 8, 6], np.uint64), low=np.array([18, 0, 5, 0, 0], np.uint64))
    assert index.find(asked).tolist() == [9, 0, -1, -1, -1]


def test_keys_of_a_sliced_column():
    column = pa.array([digest(0), None, digest(2), digest(3)], pa.binary(32)).slice(1)
    keys, has = keys_of_binary(column)
    assert has.tolist() == [False, True, True]
    assert keys.high[1:].tolist() == keys_of([digest(2), digest(3)])[0].high.tolist()
    assert keys.low[1:].tolist() == keys_of([digest(2), digest(3)])[0].low.tolist()


def test_a_run_that_changes_meanwhile(tmp_path):
    run = EarlierRun.open(make_run(tmp_path / "run", [1, 2]), "content")
    (tmp_path / "run" / "_SUCCESS").write_text(json.dumps({"rows": 2, "parts": 1, "finished": "later"}))
    (tmp_path / "index").mkdir()
    with pytest.raises(OutputError, match="has changed since this run began"):
        build([run], tmp_path / "index", failed=False, feature_size=C)


def test_no_room(tmp_path, monkeypatch):
    run = EarlierRun.open(make_run(tmp_path / "run", [1, 2]), "content")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(PscrError, match=r"no room for the index of known images .* set TMPDIR"):
        build([run], tmp_path, failed=False, feature_size=C)
