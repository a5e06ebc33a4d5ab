import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine import Scorer
from pscr_engine.config import ScoreConfig
from pscr_engine.errors import OutputError, PscrError
from pscr_engine.output import local_folder
from pscr_engine.output.run_directory import RunDirectory
from pscr_engine.output.shard import Shard

from ..helpers.images import encoded, pixels

RUN = {"identity": {"bundle": "b1", "manifest": "m1", "chunk_rows": 2}}


def part(*statuses):
    return pa.table({"row": range(len(statuses)), "status": list(statuses)})


def write_one_part(path, run=RUN):
    directory = RunDirectory.open(path, run)
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
    counts = {"rows": 4, "parts": 2, "status": {"ok": 3, "missing": 1}, "seconds": 1, "processes": []}
    assert content == directory.success() == counts
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        ".lock", "_SUCCESS", "_run.json", "part-000000.parquet", "part-000001.parquet",
    ]  # fmt: skip
    directory.close()


def test_the_same_run_goes_on_and_another_is_refused(tmp_path):
    write_one_part(tmp_path)
    again = RunDirectory.open(tmp_path, RUN)
    assert again.parts.indices() == [0]
    again.close()
    for name in RUN["identity"]:
        other = {"identity": {**RUN["identity"], name: "other"}}
        with pytest.raises(OutputError, match=f"another {name.replace('_', ' ')} .*overwrite"):
            RunDirectory.open(tmp_path, other)
    afresh = RunDirectory.open(tmp_path, other, overwrite=True)
    assert afresh.done() == []
    assert afresh.parts.indices() == [0]  # until the new run can begin
    assert json.loads((tmp_path / "_run.json").read_text()) == RUN
    afresh.begin()
    assert afresh.parts.indices() == []
    assert json.loads((tmp_path / "_run.json").read_text()) == other
    afresh.close()


def test_foreign_files_are_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"not empty .*thesis\.tex"):
            RunDirectory.open(tmp_path, RUN, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_overwrite_keeps_files_that_are_not_ours(tmp_path):
    write_one_part(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with closing(RunDirectory.open(tmp_path, RUN, overwrite=True)) as directory:
        directory.begin()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "_run.json", "notes.txt"]


def test_files_cut_off_by_a_crash_are_cleared(tmp_path):
    RunDirectory.open(tmp_path, RUN).close()
    (tmp_path / ".part-000000.parquet.partial-99999999").write_bytes(b"half")
    RunDirectory.open(tmp_path, RUN).close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "_run.json"]


def test_a_damaged_part_or_run_file_is_named(tmp_path):
    directory = RunDirectory.open(tmp_path, RUN)
    directory.parts.path(0).write_bytes(b"PAR1 not really")
    with pytest.raises(OutputError, match=r"part-000000\.parquet: damaged"):
        list(directory.parts.statuses())
    directory.close()
    (tmp_path / "_run.json").write_text("{")
    with pytest.raises(OutputError, match=r"_run\.json is damaged"):
        RunDirectory.open(tmp_path, RUN)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't write there"):
        RunDirectory.open(tmp_path / "file" / "out", RUN)


@pytest.mark.medium
def test_two_runs_at_once_are_refused(tmp_path):
    first = RunDirectory.open(tmp_path, RUN)
    with pytest.raises(OutputError, match=r"another run is writing there \(process \d+ on"):
        RunDirectory.open(tmp_path, RUN)
    first.close()
    RunDirectory.open(tmp_path, RUN).close()


@pytest.mark.medium
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
    directory.close()


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
    write_one_part(tmp_path, shipped)
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


def test_another_manifest_is_named_by_what_users_call_it(tmp_path):
    def run(digest, name):
        return {"identity": {"manifest": digest}, "settings": {"manifest": name}}

    write_one_part(tmp_path, run("files:" + "1" * 64, "photos/"))
    with pytest.raises(OutputError) as raised:
        RunDirectory.open(tmp_path, run("2" * 64, "list.csv"))
    assert str(raised.value) == (
        f"{tmp_path}: holds a run with another manifest (photos, now list.csv); choose another out or use "
        "overwrite=True"
    )
    with pytest.raises(OutputError) as raised:
        RunDirectory.open(tmp_path, run("2" * 64, "photos"))
    assert str(raised.value) == (
        f"{tmp_path}: holds a run with another manifest (photos, which has changed since); choose another out, with "
        f'known="{tmp_path}" to score only what is new, or use overwrite=True'
    )
    for other in ({"identity": {"manifest": None}}, {"identity": {}, "settings": None}):
        with pytest.raises(OutputError, match=r"another manifest \(files:1{15}\.\.\., now unset\)"):
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


def as_of_an_earlier_version(folder):
    (folder / "_run.json").rename(folder / "run.json")


def test_a_folder_of_an_earlier_version_goes_on_under_the_new_name(tmp_path):
    write_one_part(tmp_path)
    content = (tmp_path / "_run.json").read_bytes()
    as_of_an_earlier_version(tmp_path)
    with pytest.raises(OutputError, match="holds a run with another manifest"):
        RunDirectory.open(tmp_path, {"identity": {**RUN["identity"], "manifest": "m2"}})
    assert (tmp_path / "run.json").read_bytes() == content  # who is refused leaves it as it was
    again = RunDirectory.open(tmp_path, {**RUN, "started": "later"})
    assert again.parts.indices() == [0]
    assert "started" not in again.run
    again.close()
    assert (tmp_path / "_run.json").read_bytes() == content
    assert not (tmp_path / "run.json").exists()


def test_shards_may_rename_the_old_file_at_once(tmp_path):
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        write_one_part(folder)
        as_of_an_earlier_version(folder)
        barrier = threading.Barrier(6)

        def one(index, folder=folder, barrier=barrier):
            barrier.wait()
            return RunDirectory.open(folder, RUN, shard=Shard(index, 6))

        with ThreadPoolExecutor(6) as threads:
            opened = list(threads.map(one, range(6)))
        assert len(opened) == 6
        for directory in opened:
            directory.close()
        assert not (folder / "run.json").exists()
        assert json.loads((folder / "_run.json").read_text()) == RUN


def test_two_files_that_say_different_things_are_not_chosen_from(tmp_path):
    write_one_part(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"identity": {"manifest": "mine"}}))
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"_run\.json and run\.json are both there and differ"):
            RunDirectory.open(tmp_path, RUN, overwrite=overwrite)
    assert (tmp_path / "part-000000.parquet").exists()
    shutil.copy(tmp_path / "_run.json", tmp_path / "run.json")  # killed in the middle of the renaming
    RunDirectory.open(tmp_path, RUN).close()
    assert not (tmp_path / "run.json").exists()


def test_overwrite_removes_what_an_earlier_version_wrote(tmp_path):
    write_one_part(tmp_path)
    as_of_an_earlier_version(tmp_path)
    with closing(RunDirectory.open(tmp_path, RUN, overwrite=True)) as directory:
        directory.begin()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "_run.json"]


OTHER = {"identity": {**RUN["identity"], "manifest": "m2"}}


def test_a_run_without_parts_is_none(tmp_path):
    RunDirectory.open(tmp_path, RUN).close()
    (tmp_path / "_SUCCESS").write_text('{"rows": 0, "parts": 0, "status": {}}')  # of an empty manifest
    directory = RunDirectory.open(tmp_path, OTHER)
    assert directory.run == json.loads((tmp_path / "_run.json").read_text()) == OTHER
    assert directory.success() is None
    directory.close()
    as_of_an_earlier_version(tmp_path)
    RunDirectory.open(tmp_path, RUN, shard=Shard(1, 3)).close()
    assert json.loads((tmp_path / "_run.json").read_text()) == RUN
    assert not (tmp_path / "run.json").exists()


def test_a_file_that_is_no_runs_is_not_replaced(tmp_path):
    (tmp_path / "run.json").write_text('{"epochs": 3}')
    with pytest.raises(OutputError, match=r"_run\.json is damaged"):
        RunDirectory.open(tmp_path, RUN)
    assert (tmp_path / "run.json").read_text() == '{"epochs": 3}'


def test_a_run_without_parts_is_one_while_a_shard_is_at_work_on_it(tmp_path, monkeypatch):
    monkeypatch.setattr(local_folder, "_LOCK_SECONDS", 0.1)
    first = RunDirectory.open(tmp_path, RUN, shard=Shard(0, 2))
    with pytest.raises(OutputError, match="holds a run with another manifest"):
        RunDirectory.open(tmp_path, OTHER, shard=Shard(1, 2))
    first.close()
    RunDirectory.open(tmp_path, OTHER, shard=Shard(1, 2)).close()
    write_one_part(tmp_path, RUN)
    with pytest.raises(OutputError, match="holds a run with another manifest"):
        RunDirectory.open(tmp_path, OTHER, shard=Shard(1, 2))


@pytest.mark.medium
def test_shards_that_start_at_once_agree_on_one_run(tmp_path, monkeypatch):
    """Start the shards of two runs at once in a folder of a third that never began: of at most one run are any left."""
    monkeypatch.setattr(local_folder, "_LOCK_SECONDS", 0.5)
    runs = [{"identity": {**RUN["identity"], "manifest": name}} for name in ("a", "b")]
    went_on = 0
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        RunDirectory.open(folder, RUN).close()
        wanted = [runs[0]] * 6 if attempt % 2 else [runs[index % 2] for index in range(6)]
        barrier, opened = threading.Barrier(6), []

        def one(index, folder=folder, barrier=barrier, opened=opened, wanted=wanted):
            barrier.wait()
            with suppress(OutputError):
                opened.append((wanted[index], RunDirectory.open(folder, wanted[index], shard=Shard(index, 6))))

        threads = [threading.Thread(target=one, args=[index]) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        there = json.loads((folder / "_run.json").read_text())
        for run, directory in opened:
            assert run == there == directory.run
            directory.close()
        if attempt % 2:
            assert len(opened) == 6  # of one run, none is refused
        went_on += bool(opened)
    assert went_on >= 4
