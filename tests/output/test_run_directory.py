import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine import Scorer
from pscr_engine.config import ScoreConfig
from pscr_engine.errors import OutputError, PscrError
from pscr_engine.output.run_directory import RunDirectory

from ..helpers.images import encoded, pixels

RUN = {"identity": {"bundle": "b1", "manifest": "m1", "chunk_rows": 2}}


def part(*statuses):
    return pa.table({"row": range(len(statuses)), "status": list(statuses)})


def write_one_part(path):
    directory = RunDirectory.open(path, RUN)
    directory.parts.write(0, part("ok"))
    directory.close()


def test_parts_are_counted_before_success_is_claimed(tmp_path):
    directory = RunDirectory.open(tmp_path / "out", RUN)
    directory.parts.write(0, part("ok", "missing"))
    with pytest.raises(PscrError, match="2 rows in 1 parts, but the manifest has 4 rows in 2 chunks"):
        directory.finish(4, 2, {})
    assert directory.success() is None
    directory.parts.write(1, part("ok", "ok"))
    content = directory.finish(4, 2, {"seconds": 1})
    assert content == directory.success() == {"rows": 4, "parts": 2, "status": {"ok": 3, "missing": 1}, "seconds": 1}
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        ".lock", "_SUCCESS", "part-000000.parquet", "part-000001.parquet", "run.json",
    ]  # fmt: skip


def test_the_same_run_goes_on_and_another_is_refused(tmp_path):
    write_one_part(tmp_path)
    again = RunDirectory.open(tmp_path, RUN)
    assert again.parts.indices() == [0]
    again.close()
    for name in RUN["identity"]:
        other = {"identity": {**RUN["identity"], name: "other"}}
        with pytest.raises(OutputError, match=f"another {name.replace('_', ' ')} .*overwrite"):
            RunDirectory.open(tmp_path, other)
    assert RunDirectory.open(tmp_path, other, overwrite=True).parts.indices() == []
    assert json.loads((tmp_path / "run.json").read_text()) == other


def test_foreign_files_are_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"not empty .*thesis\.tex"):
            RunDirectory.open(tmp_path, RUN, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_overwrite_keeps_files_that_are_not_ours(tmp_path):
    write_one_part(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    RunDirectory.open(tmp_path, RUN, overwrite=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "notes.txt", "run.json"]


def test_files_cut_off_by_a_crash_are_cleared(tmp_path):
    RunDirectory.open(tmp_path, RUN).close()
    (tmp_path / ".part-000000.parquet.partial-99999999").write_bytes(b"half")
    RunDirectory.open(tmp_path, RUN)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "run.json"]


def test_a_damaged_part_or_run_file_is_named(tmp_path):
    directory = RunDirectory.open(tmp_path, RUN)
    directory.parts.path(0).write_bytes(b"PAR1 not really")
    with pytest.raises(OutputError, match=r"part-000000\.parquet: damaged"):
        list(directory.parts.statuses())
    directory.close()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match=r"run\.json is damaged"):
        RunDirectory.open(tmp_path, RUN)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't write there"):
        RunDirectory.open(tmp_path / "file" / "out", RUN)


def test_two_runs_at_once_are_refused(tmp_path):
    first = RunDirectory.open(tmp_path, RUN)
    with pytest.raises(OutputError, match=r"another run is writing there \(process \d+ on"):
        RunDirectory.open(tmp_path, RUN)
    first.close()
    RunDirectory.open(tmp_path, RUN).close()


def test_a_refused_run_touches_nothing_of_the_one_that_lives(tmp_path):
    first = RunDirectory.open(tmp_path, RUN)
    (tmp_path / ".part-000000.parquet.partial-1").write_bytes(b"being written")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="another run is writing there"):
            RunDirectory.open(tmp_path, RUN, overwrite=overwrite)
    assert (tmp_path / ".part-000000.parquet.partial-1").exists()
    first.close()


def test_success_is_not_believed_when_a_part_has_gone(tmp_path):
    directory = RunDirectory.open(tmp_path, RUN)
    directory.parts.write(0, part("ok", "ok"))
    directory.parts.write(1, part("ok"))
    directory.finish(3, 2, {})
    assert directory.success() is not None
    directory.parts.path(0).unlink()
    assert directory.success() is None


def test_a_refusal_lets_go_of_the_folder(tmp_path):
    write_one_part(tmp_path)
    other = {"identity": {**RUN["identity"], "bundle": "other"}}
    with pytest.raises(OutputError) as kept:  # and with it, its frames
        RunDirectory.open(tmp_path, other)
    RunDirectory.open(tmp_path, other, overwrite=True).close()
    assert kept.value


def test_another_bundle_is_named_by_what_users_call_it(tmp_path):
    def run(digest, name, **facts):
        return {"identity": {"bundle": digest}, "settings": {"bundle": name}, "bundle": facts}

    shipped = run("1" * 64, "lite0", shipped_model="lite0", by_default=True)
    RunDirectory.open(tmp_path, shipped).close()
    with pytest.raises(OutputError) as raised:
        RunDirectory.open(tmp_path, run("2" * 64, "a/model.pscr", shipped_model=None, by_default=False))
    assert str(raised.value) == (
        f"{tmp_path}: holds a run with another bundle (the shipped model lite0, taken since none was named, now "
        "a/model.pscr); go on with bundle lite0, choose another out or use overwrite=True"
    )
    same_name = run("2" * 64, "lite0", shipped_model="lite0", by_default=True)
    earlier = {"identity": {"bundle": "2" * 64}}
    for other in (same_name, earlier, {**earlier, "settings": None, "bundle": []}):
        with pytest.raises(OutputError, match=r"another bundle \(1{21}\.\.\., now 2{21}\.\.\.\); choose another out"):
            RunDirectory.open(tmp_path, other)


@pytest.mark.parametrize("damage", ["empty", "cut", "fewer rows", "no part at all"])
def test_a_damaged_part_of_a_complete_run_is_scored_again(tmp_path, tiny, caplog, damage):
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(encoded(pixels(40, 40, index)))
    (tmp_path / "m.csv").write_text("\n".join(["path", *(f"{index % 5}.png" for index in range(70))]))
    config = ScoreConfig(
        str(tmp_path / "m.csv"), bundle=str(tiny.path), out=tmp_path / "out", devices="cpu", chunk_rows=16
    )
    first = Scorer.score_manifest(config)
    assert (first.rows, first.status) == (70, {"ok": 70})
    part = tmp_path / "out" / "part-000002.parquet"
    whole = pq.read_table(part)
    match damage:
        case "empty":
            part.write_bytes(b"")
        case "cut":
            part.write_bytes(part.read_bytes()[:-20])
        case "fewer rows":
            pq.write_table(whole.slice(3), part)
        case "no part at all":
            part.write_text("<html>")
    again = Scorer.score_manifest(config)
    assert (again.rows, again.status, again.scored) == (70, {"ok": 70}, 16)
    assert pq.read_table(part).equals(whole)
    assert "part-000002.parquet: damaged" in caplog.text
    assert Scorer.score_manifest(config).scored == 0
