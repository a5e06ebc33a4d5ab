"""`--shard`: processes that share an output folder and nothing else."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.config import ScoreConfig
from pscr_engine.errors import OutputError, UsageError
from pscr_engine.output import local_folder
from pscr_engine.output.run_directory import RunDirectory
from pscr_engine.output.shard import WHOLE, Shard
from pscr_engine.runners.ledger import ChunkDone, Ledger

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle

ROWS, CHUNK = 1010, 20
KINDS = ("csv", "tar", "parquet")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make manifests of the same images, and an uninterrupted run's output for each."""
    folder = tmp_path_factory.mktemp("shards")
    make_bundle(folder / "model.pscr")
    files = {f"{index:03d}.png": encoded(pixels(40 + index, 70, index)) for index in range(39)}
    files["039.png"] = b"broken"
    for name, data in files.items():
        (folder / name).write_bytes(data)
    names = [f"{row % 41:03d}.png" for row in range(ROWS)]  # 040.png is missing
    (folder / "m.csv").write_text("path\n" + "\n".join(names) + "\n")
    pq.write_table(pa.table({"path": names}), folder / "m.parquet", row_group_size=64)
    subprocess.run(["tar", "cf", "m.tar", *sorted(files)], cwd=folder, check=True)
    for kind in KINDS:
        outcome = subprocess.run([*command(kind), "--out", f"whole-{kind}"], cwd=folder, capture_output=True, text=True)
        assert outcome.returncode == 0, outcome.stderr
    return folder


def command(kind="csv", chunk=CHUNK):
    rows = 4 if kind == "tar" else chunk  # 40 members: the last chunk is full
    return [
        *[sys.executable, "-m", "pscr_engine", "score", "--manifest", f"m.{kind}", "--chunk-rows", str(rows)],
        *["--batch-size", "4"],
    ]


def start(place, out, shard, kind="csv", **environment):
    return subprocess.Popen(
        [*command(kind), "--out", str(out), "--shard", shard],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=360)
    assert process.returncode == code, err
    return out, err


def parts(folder):
    return {part.name: part.read_bytes() for part in sorted(folder.glob("part-*.parquet"))}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_started_together_they_give_the_parts_of_one_run(place, kind):
    processes = [start(place, f"together-{kind}", f"{index}/3", kind) for index in range(3)]
    outs = [finish(process)[0] for process in processes]
    assert parts(place / f"together-{kind}") == parts(place / f"whole-{kind}")
    ours, whole = (json.loads((place / f"{name}-{kind}" / "_SUCCESS").read_text()) for name in ("together", "whole"))
    assert {name: ours[name] for name in ("rows", "parts", "status")} == {
        name: whole[name] for name in ("rows", "parts", "status")
    }
    assert any(f"{whole['rows']} rows: " in out and "not complete" not in out for out in outs)


@pytest.mark.slow
def test_one_after_another_each_says_where_the_run_is(place):
    for index in (2, 0):
        out, _ = finish(start(place, "in-turn", f"{index}/3"))
        assert f"shard {index}/3: " in out
        assert "this shard is done, the run is not complete yet: " in out
        assert not (place / "in-turn" / "_SUCCESS").exists()
    out, _ = finish(start(place, "in-turn", "0/3"))  # once more: nothing to do
    assert out.startswith("shard 0/3: 0 rows: nothing to score\n")
    out, _ = finish(start(place, "in-turn", "1/3"))
    assert out.startswith(f"{ROWS} rows: ")
    assert parts(place / "in-turn") == parts(place / "whole-csv")
    _, err = finish(start(place, "in-turn", "0/3"))
    assert "is complete already" in err


@pytest.mark.slow
def test_killed_and_restarted_in_any_order_with_any_number(place, tmp_path):
    dice = random.Random(7)
    out = tmp_path / "out"
    interrupted = 0
    for _ in range(4):
        count, before = dice.choice([2, 3, 5]), len(list(out.glob("part-*.parquet")))
        running = [start(place, out, f"{index}/{count}") for index in dice.sample(range(count), 2)]
        # In the middle of the work, however fast the machine is.
        wanted = before + dice.randrange(4)
        while len(list(out.glob("part-*.parquet"))) <= wanted and any(process.poll() is None for process in running):
            time.sleep(0.002)
        for process in running:
            process.send_signal(dice.choice([signal.SIGKILL, signal.SIGTERM]))
        for process in running:
            process.communicate()
            interrupted += process.returncode != 0
        complete = parts(out).keys() == parts(place / "whole-csv").keys()
        assert complete or not (out / "_SUCCESS").exists()
    assert interrupted
    for index in (3, 1, 0, 2):
        finish(start(place, out, f"{index}/4"))
    assert parts(out) == parts(place / "whole-csv")
    assert json.loads((out / "_SUCCESS").read_text())["rows"] == ROWS
    assert not [name for name in os.listdir(out) if "partial" in name]


def test_what_cannot_go_together_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(local_folder, "_LOCK_SECONDS", 0.1)
    run = {"identity": {"manifest": "m", "chunk_rows": 2}}
    first = RunDirectory.open(tmp_path / "out", run, shard=Shard(0, 2))
    second = RunDirectory.open(tmp_path / "out", run, shard=Shard(1, 2))
    for shard, match in (
        (Shard(0, 2), r"another process with shard 0/2 is writing there \(process \d+ on "),
        (Shard(0, 3), "shard [01]/2 is writing there .* before you change the number of shards"),
        (WHOLE, "shard [01]/2 is writing there"),
    ):
        with pytest.raises(OutputError, match=match):
            RunDirectory.open(tmp_path / "out", run, shard=shard)
    second.close()
    other = {"identity": {**run["identity"], "manifest": "n"}}
    with pytest.raises(OutputError, match="another manifest"):
        RunDirectory.open(tmp_path / "out", other, shard=Shard(1, 2))
    first.close()
    whole = RunDirectory.open(tmp_path / "out", run)
    with pytest.raises(OutputError, match="a run without shard is writing there"):
        RunDirectory.open(tmp_path / "out", run, shard=Shard(0, 2))
    whole.close()


def test_half_files_of_other_shards_are_left_alone(tmp_path):
    run = {"identity": {"manifest": "m"}}
    first = RunDirectory.open(tmp_path, run, shard=Shard(0, 2))
    half = [tmp_path / f".part-{index:06d}.parquet.partial-12" for index in (4, 5)]
    for file in half:
        file.touch()
    RunDirectory.open(tmp_path, run, shard=Shard(1, 2)).close()
    assert [file.exists() for file in half] == [True, False]
    first.close()
    assert not half[0].exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("3/3", "shard 3/3: shards are counted from 0, so 3 of them are 0/3 to 2/3"),
        ("0/0", "counted from 0"),
        ("1", "shard 1: write it as i/n"),
        ("-1/3", "write it as i/n"),
        ("a/b", "write it as i/n"),
    ],
)
def test_shards_that_make_no_sense(text, match):
    with pytest.raises(UsageError, match=match):
        Shard.parse(text)


@pytest.mark.parametrize("flag", ["overwrite", "retry_failed"])
def test_flags_that_are_for_a_whole_run(flag):
    with pytest.raises(UsageError, match="is for a whole run"):
        ScoreConfig("m.csv", shard="0/2", **{flag: True})


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 200))
def test_every_chunk_is_one_shards(count, chunk_rows, rows):
    handed_out, owned = [], 0
    for index in range(count):
        shard = Shard(index, count)
        ledger = Ledger(chunk_rows, end=rows, shard=shard)
        for chunk in ledger.chunks():
            assert shard.owns(chunk.index)
            handed_out.append(chunk.index)
            there = max(0, min(rows, chunk.rows.stop) - chunk.rows.start)
            ledger.done(ChunkDone(chunk.index, there, {}))
        owned += shard.rows(rows, chunk_rows)
    assert sorted(handed_out) == list(range(-(-rows // chunk_rows)))
    assert owned == rows


def test_shards_are_pickled_with_the_config():
    import pickle

    config = ScoreConfig("m", bundle="s3://b/m", out="s3://b/out", shard="1/4")
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    assert str(copy.out) == "s3://b/out"
    assert copy.shard == Shard(1, 4)
    assert ScoreConfig("m", out="out").out == Path("out")
