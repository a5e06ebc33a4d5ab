"""What each process did for a run, over interruptions, retries and shards."""

import json
import threading

import pyarrow as pa
import pytest

from pscr_engine.output import processes
from pscr_engine.output.processes import count_processes, read_records, shares_of, totals, united, write_record
from pscr_engine.output.run_directory import RunDirectory
from pscr_engine.output.shard import Shard
from pscr_engine.stores.uri import StorePath

RUN = {"identity": {"manifest": "m", "chunk_rows": 2}}


def share(name, images=2, **facts):
    return {
        "id": name,
        "host": "h",
        "started": f"2026-01-01T00:00:0{name[-1]}",
        "images": images,
        "seconds": 1.5,
        **facts,
    }


def part(rows=2):
    return pa.table({"row": range(rows), "status": ["ok"] * rows})


def records(folder):
    return [entry.name for entry in folder.iterdir() if processes.is_record(entry.name)]


def test_what_an_interrupted_process_did_is_kept(tmp_path):
    first = RunDirectory.open(tmp_path, RUN)
    first.begin()
    first.parts.write(0, part())
    first.note_process(share("p0", 1))
    first.note_process(share("p0", 2))  # a later note takes the place of an earlier one
    first.close()
    assert len(records(tmp_path)) == 1
    second = RunDirectory.open(tmp_path, RUN)
    second.begin()
    second.parts.write(1, part())
    content = second.finish(4, 2, {"seconds": 1.5}, share("p1"))
    assert content["processes"] == [share("p0"), share("p1")]
    assert second.success() == content
    assert records(tmp_path) == []
    second.close()


def test_a_complete_run_that_is_worked_on_again_keeps_what_it_had(tmp_path):
    first = RunDirectory.open(tmp_path, RUN)
    first.begin()
    first.parts.write(0, part())
    first.finish(2, 1, {}, share("p0"))
    first.close()
    killed = RunDirectory.open(tmp_path, RUN)
    killed.begin()  # removes `_SUCCESS`; killed before it has noted anything
    killed.close()
    third = RunDirectory.open(tmp_path, RUN)
    third.begin()
    third.note_process(share("p2", 1))
    third.begin()  # once more, as for a runner that needed no worker
    assert third.finish(2, 1, {}, share("p2", 1))["processes"] == [share("p0"), share("p2", 1)]
    third.close()


def test_shards_that_finish_at_once_lose_nobody(tmp_path):
    for attempt in range(10):
        folder, barrier = tmp_path / str(attempt), threading.Barrier(4)
        directories = [RunDirectory.open(folder, RUN, shard=Shard(index, 4)) for index in range(4)]
        for index, directory in enumerate(directories):
            directory.begin()
            directory.parts.write(index, part())
            directory.note_process(share(f"p{index}"))

        def one(index, directories=directories, barrier=barrier):
            barrier.wait()
            directories[index].finish(8, 4, {}, share(f"p{index}"))

        threads = [threading.Thread(target=one, args=[index]) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert directories[0].success()["processes"] == [share(f"p{index}") for index in range(4)]
        assert records(folder) == []
        for directory in directories:
            directory.close()


def test_overwrite_forgets_earlier_processes(tmp_path):
    first = RunDirectory.open(tmp_path, RUN)
    first.begin()
    first.parts.write(0, part())
    first.note_process(share("p0"))
    first.close()
    second = RunDirectory.open(tmp_path, RUN, overwrite=True)
    second.begin()
    second.parts.write(0, part())
    assert second.finish(2, 1, {}, share("p1"))["processes"] == [share("p1")]
    second.close()


def test_many_processes_become_few(monkeypatch):
    monkeypatch.setattr(processes, "_MOST", 3)
    kept = []
    for index in range(7):
        kept = united([*kept, share(f"p{index}")])
    assert [each["id"] for each in kept] == ["earlier", "p5", "p6"]
    assert count_processes(kept) == 7
    assert totals(kept) == {"images": 14, "seconds": 10.5}


@pytest.mark.parametrize(
    "success",
    [
        {"processes": [3, {"images": 1}, {"id": "x", "images": "many"}, {"id": "y", "seconds": None}]},
        {},
        None,
        {"scored_by_last_run": "all"},
        {"scored_by_last_run": 0, "finished": "now"},
    ],
)
def test_what_is_no_share_is_passed_over(success):
    assert shares_of(success) == []


def test_an_earlier_versions_last_process_counts():
    success = {"rows": 9, "scored_by_last_run": 4, "seconds": 2.0, "finished": "2026-01-01T12:01:00+00:00"}
    assert totals(shares_of(success)) == {"images": 4, "seconds": 2.0}


def test_a_damaged_record_is_said_and_passed_over(tmp_path, caplog):
    directory = RunDirectory.open(tmp_path, RUN)
    for name, content in (("0", "{"), ("1", "[]"), ("2", json.dumps({"processes": [share("p0")]}))):
        (tmp_path / f"_process-{name * 16}").write_text(content)
    found = read_records(directory._folder, sorted(records(tmp_path)))
    assert found == [share("p0")]
    assert caplog.text.count("damaged; what that process did is not counted") == 2
    directory.close()


def test_a_folder_that_refuses_is_worth_a_warning(tmp_path, caplog):
    directory = RunDirectory.open(tmp_path, RUN)
    (tmp_path / f"_process-{'0' * 16}").mkdir()
    write_record(directory._folder, "0" * 16, [share("p0")])
    assert "can't note what this process has done" in caplog.text
    directory.close()


def test_shards_in_a_store_lose_nobody(bucket):
    out = StorePath.parse(f"{bucket.uri}/out")
    for index in range(2):
        directory = RunDirectory.open(out, RUN, shard=Shard(index, 2))
        directory.begin()
        directory.parts.write(index, part())
        if index == 0:
            directory.note_process(share("p0"))
        else:
            directory.finish(4, 2, {}, share("p1"))
        directory.close()
    assert json.loads(bucket.get("out/_SUCCESS"))["processes"] == [share("p0"), share("p1")]
    names = ["_SUCCESS", "_run.json", "part-000000.parquet", "part-000001.parquet"]
    assert bucket.keys("out") == [f"out/{name}" for name in names]
