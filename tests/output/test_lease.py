"""Claims on output folders in a store: one lives, another is refused; one dies, another takes over."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pscr_engine.errors import InUseError, OutputError, StoreError
from pscr_engine.output import lease as lease_module
from pscr_engine.output.lease import claim, replacing
from pscr_engine.output.run_directory import RunDirectory
from pscr_engine.output.run_reader import RunReader
from pscr_engine.output.shard import WHOLE, Shard
from pscr_engine.stores import objects
from pscr_engine.stores.trouble import Kind
from pscr_engine.stores.uri import StorePath

RUN = {"identity": {"manifest": "m"}}


@pytest.fixture
def out(bucket, monkeypatch):
    monkeypatch.setattr(lease_module, "SECONDS", 1.0)
    return StorePath.parse(f"{bucket.uri}/out")


def abandon(lease):
    """Stop renewing a lease without releasing it, as if its process had been killed."""
    lease._released.set()
    lease._thread.join()


def test_a_second_run_is_refused_while_the_first_lives(out):
    first = RunDirectory.open(out, RUN)
    begun = time.monotonic()
    with pytest.raises(OutputError, match=r"another run is writing there \(process \d+ on .*\); wait for it"):
        RunDirectory.open(out, RUN)
    assert time.monotonic() - begun < 1
    time.sleep(1.5)  # longer than it would live unrenewed
    first.check()
    with pytest.raises(OutputError, match="a run without shard is writing there"):
        RunDirectory.open(out, RUN, shard=Shard(0, 2))
    first.close()
    RunDirectory.open(out, RUN, shard=Shard(0, 2)).close()


def test_a_dead_one_expires(out, bucket):
    abandon(claim(out, WHOLE))
    begun = time.monotonic()
    second = claim(out, WHOLE)
    assert 0.9 < time.monotonic() - begun < 4
    second.check()
    second.release()
    assert bucket.keys("out") == []


def test_dead_shards_of_another_number_are_cleared_away(out, bucket):
    abandon(claim(out, Shard(1, 3)))
    lease = claim(out, Shard(0, 2))
    assert bucket.keys("out") == ["out/.locks/0-of-2"]
    lease.release()


def test_who_loses_the_claim_notices(out):
    lease = claim(out, WHOLE)
    objects.remove([out / ".locks" / "0-of-1"])
    thief = claim(out, WHOLE)
    deadline = time.monotonic() + 5
    with pytest.raises(InUseError, match=r"the claim to write there is lost \(another process has taken it over\)"):
        while time.monotonic() < deadline:
            lease.check()
            time.sleep(0.05)
    lease.release()
    thief.check()  # it was not removed by who had lost it
    assert objects.look(out / ".locks" / "0-of-1") is not None
    thief.release()


def test_who_cannot_renew_in_time_notices(out, monkeypatch):
    lease = claim(out, WHOLE)

    def away(*arguments):
        raise StoreError("away", Kind.UNREACHABLE)

    monkeypatch.setattr(objects, "read", away)
    deadline = time.monotonic() + 5
    with pytest.raises(OutputError, match="could not be renewed in time"):
        while time.monotonic() < deadline:
            lease.check()
            time.sleep(0.05)
    monkeypatch.undo()
    lease.release()


def test_an_answer_that_is_lost_is_no_loss(out, monkeypatch):
    """Drop the answer of a put that succeeded: tried again, the condition does not hold any more."""
    plain, lost = objects.put, []

    def put(path, data, only=None):
        plain(path, data, only)
        lost.append(only)
        return False

    monkeypatch.setattr(objects, "put", put)
    lease = claim(out, WHOLE)
    time.sleep(1.5)
    lease.check()
    assert len(lost) >= 3
    lease.release()


def test_stores_without_conditions(out, monkeypatch, bucket):
    """Refuse conditions: the claim is written plainly and read back a moment later."""
    plain = objects.put

    def put(path, data, only=None):
        if only is not None:
            raise StoreError(f"{path}: can't write it (501 NotImplemented)", Kind.BUSY)
        return plain(path, data)

    monkeypatch.setattr(objects, "put", put)
    monkeypatch.setattr(objects, "_SETTLE_SECONDS", 0.1)
    directory = RunDirectory.open(out, RUN)
    assert bucket.keys("out") == ["out/.locks/0-of-1", "out/_run.json"]
    with pytest.raises(OutputError, match="another run is writing there"):
        RunDirectory.open(out, RUN)
    time.sleep(1.2)
    directory.check()
    directory.close()


def test_run_json_is_created_once(out):
    first = RunDirectory.open(out, RUN, shard=Shard(0, 2))
    with pytest.raises(OutputError, match="holds a run with another manifest"):
        RunDirectory.open(out, {"identity": {"manifest": "n"}}, shard=Shard(1, 2))
    second = RunDirectory.open(out, {**RUN, "started": "later"}, shard=Shard(1, 2))
    assert "started" not in second.run
    first.close()
    second.close()


def test_foreign_objects_are_never_touched(out, bucket):
    bucket.put("out/deeper/thesis.tex", b"years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"not empty and not the output of a run \(it has deeper/thesis\.tex\)"):
            RunDirectory.open(out, RUN, overwrite=overwrite)
    assert bucket.keys("out") == ["out/deeper/thesis.tex"]


def test_overwrite_keeps_what_is_not_ours(out, bucket):
    RunDirectory.open(out, RUN).close()
    bucket.put("out/part-000003.parquet", b"x")
    bucket.put("out/notes.txt", b"mine")
    bucket.put("outside/part-000001.parquet", b"another's")
    afresh = RunDirectory.open(out, {"identity": {"manifest": "n"}}, overwrite=True)
    afresh.begin()
    afresh.close()
    assert bucket.keys() == ["out/_run.json", "out/notes.txt", "outside/part-000001.parquet"]


def test_a_run_of_an_earlier_version_goes_on_in_a_store(out, bucket):
    content = json.dumps(RUN).encode()
    bucket.put("out/run.json", content)
    bucket.put("out/part-000000.parquet", b"x")
    with pytest.raises(OutputError, match="holds a run with another manifest"):
        RunDirectory.open(out, {"identity": {"manifest": "n"}})
    assert bucket.keys("out") == ["out/part-000000.parquet", "out/run.json"]
    shards = [RunDirectory.open(out, RUN, shard=Shard(index, 2)) for index in range(2)]
    for shard in shards:
        assert shard.parts.indices() == [0]
        shard.close()
    assert bucket.keys("out") == ["out/_run.json", "out/part-000000.parquet"]
    assert bucket.get("out/_run.json") == content


def test_a_run_of_an_earlier_version_is_read_in_a_store(out, bucket):
    run = {"identity": {"manifest": "csv:1", "chunk_rows": 2}, "settings": {"columns": {}}}
    bucket.put("out/run.json", json.dumps(run).encode())
    assert RunReader.open(out).identity == run["identity"]
    bucket.put("out/_run.json", json.dumps({**run, "started": "now"}).encode())
    with pytest.raises(OutputError, match=r"_run\.json and run\.json are both there and differ"):
        RunReader.open(out)


def test_shards_replace_a_run_without_parts_once_nobody_is_at_work_on_it(out, bucket):
    other = {"identity": {"manifest": "n"}}
    first = RunDirectory.open(out, RUN, shard=Shard(0, 4))
    abandon(claim(out, Shard(2, 4), "another"))
    with pytest.raises(OutputError, match="holds a run with another manifest"):
        RunDirectory.open(out, other, shard=Shard(1, 4))
    first.close()
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(lambda index: RunDirectory.open(out, other, shard=Shard(index, 4)), range(4)))
    assert len(opened) == 4
    for directory in opened:
        assert directory.run == other == json.loads(bucket.get("out/_run.json"))
        directory.close()
    assert bucket.keys("out") == ["out/_run.json"]


def test_who_died_while_replacing_is_waited_for_no_longer_than_a_lease_lasts(out, bucket):
    RunDirectory.open(out, RUN, shard=Shard(0, 2)).close()
    with pytest.raises(KeyError), replacing(out) as lease:
        abandon(lease)
        lease._lost = "killed"  # leaves its object
        raise KeyError
    begun = time.monotonic()
    RunDirectory.open(out, RUN, shard=Shard(0, 2)).close()
    assert 0.9 < time.monotonic() - begun < 6
    assert bucket.keys("out") == ["out/_run.json"]
