"""A list that changes under a run, at random moments: no part ever holds a row of another list."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine import Scorer
from pscr_engine.config import ScoreConfig
from pscr_engine.errors import PscrError
from pscr_engine.output.run_reader import RunReader

from ..helpers.images import encoded, pixels

ROWS, CHUNK = 300, 16


def names(letter):
    return [f"{letter}{index % 7}.png" for index in range(ROWS)]


def write(path, kind, rows, folder):
    """Write a list of images in place, as an editor or a shell's redirection does."""
    match kind:
        case "csv":
            content = ("\n".join(["path", *rows]) + "\n").encode()
        case "jsonl":
            content = "".join(f'{{"path": "{name}"}}\n' for name in rows).encode()
        case "parquet":
            buffer = io.BytesIO()
            pq.write_table(pa.table({"path": rows}), buffer, row_group_size=40)
            content = buffer.getvalue()
        case "tar":
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                for index, name in enumerate(rows):
                    data = (folder / name).read_bytes()
                    member = tarfile.TarInfo(f"{name[0]}/{index:04d}.png")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
            content = buffer.getvalue()
    path.write_bytes(content)


def scored(out):
    run = RunReader.open(out)
    return {row: (line["path"], line["score"]) for row, line in run.lines(range(2 * ROWS), ["path", "score"]).items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "tar"])
@pytest.mark.parametrize("change", ["another list", "a row more"])
def test_no_part_holds_a_row_of_another_list(tmp_path, tiny, kind, change):
    for letter in "ab":
        for index in range(7):
            shade = index * 9 + (100 if letter == "b" else 0)
            (tmp_path / f"{letter}{index}.png").write_bytes(encoded(pixels(40, 40, shade)))
    manifest = tmp_path / f"m.{kind}"
    other = names("b") if change == "another list" else [*names("a"), "a0.png"]
    config = ScoreConfig(str(manifest), bundle=str(tiny.path), out=tmp_path / "out", devices="cpu", chunk_rows=CHUNK)
    write(manifest, kind, names("a"), tmp_path)
    start = time.monotonic()
    Scorer.score_manifest(config)
    took = time.monotonic() - start
    expected = scored(tmp_path / "out")
    assert len(expected) == ROWS
    ends = []
    for seed in range(7):
        shutil.rmtree(tmp_path / "out")
        time.sleep(0.02)
        later = threading.Timer(random.Random(seed).uniform(0, took), write, [manifest, kind, other, tmp_path])
        later.start()
        try:
            Scorer.score_manifest(config)
            ends.append("complete")
        except PscrError as error:
            ends.append("refused" if str(manifest) in str(error) else f"failed otherwise: {error}")
        later.join()
        assert ends[-1] in ("complete", "refused")
        if (tmp_path / "out" / "_run.json").exists():
            there = scored(tmp_path / "out")
            if ends[-1] == "complete" and len(there) > ROWS:  # the change came before the list was read
                assert change == "a row more"
            elif any(path.startswith("b") or "/b/" in path for path, _ in there.values()):
                assert ends[-1] == "complete", "parts of another list"
                assert len(there) == ROWS
                assert all(path.startswith("b") or "/b/" in path for path, _ in there.values()), "a mixture"
            else:
                assert there == {row: expected[row] for row in there}, seed
        write(manifest, kind, names("a"), tmp_path)
        if ends[-1] == "refused":
            time.sleep(0.02)
            try:
                Scorer.score_manifest(config)
            except PscrError:  # the changed list had been fingerprinted
                continue
            assert scored(tmp_path / "out") == expected, seed
