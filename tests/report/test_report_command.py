"""`pscr-engine report` as a process: what it takes, what it refuses, and a real run from end to end."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine.output.run_reader import RunReader
from pscr_engine.report.comparison import compare

from ..helpers.images import encoded, pixels, write_troublesome
from ..helpers.runs import make_run
from ..helpers.tiny import make_bundle


def pictures(html):
    return html.count('<img src="data:image/jpeg;base64,')


def read(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def test_a_real_run_from_scoring_to_selecting(cli, tmp_path):
    expected = write_troublesome(tmp_path / "images")
    make_bundle(tmp_path / "model.pscr")
    with (tmp_path / "m.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "kind"])
        lines.writerows([f"images/{name}", name.split(".")[1]] for name in expected)
    assert cli("score", "--manifest", "m.csv").returncode == 0
    outcome = cli("report", "--by", "kind", "--caption", "path")
    assert outcome.returncode == 0, outcome.stderr
    ok = sum(status == "ok" for status in expected.values())
    assert outcome.stdout.startswith(f"{len(expected)} rows, {ok} with a score\nreport.html: ")
    html = read(tmp_path)
    for text in ("not an image in a known format", "is a directory", "parity passed", "tiny", "Images per second"):
        assert text in html
    assert pictures(html) > ok
    assert 'class="placeholder"' not in html
    assert not re.search(r"(?:src|href)=\"(?!data:image/jpeg;base64,|#)", html)
    assert "http" not in re.sub(r"http-equiv", "", html)
    first = html
    again = cli("report", "--by", "kind", "--caption", "path")  # an earlier report is replaced
    assert again.returncode == 0
    assert re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", read(tmp_path)) == re.sub(
        r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", first
    )
    selected = cli("select", "--top", "50%")
    assert selected.returncode == 0, selected.stderr
    assert pq.read_table(tmp_path / "kept.parquet").num_rows == -(-ok // 2)


def some_run(folder, manifest, count, **more):
    return make_run(folder / "scores", manifest, [float(row) for row in range(count)], **more)


def test_images_in_parquet_and_in_shards_are_shown(cli, tmp_path):
    images = [encoded(pixels(30, 30, seed)) for seed in range(6)]
    structs = [{"bytes": image, "path": f"{row}.png"} for row, image in enumerate(images)]
    pq.write_table(pa.table({"image": structs}), tmp_path / "m.parquet", row_group_size=2)
    some_run(tmp_path, tmp_path / "m.parquet", 6)
    assert cli("report").returncode == 0
    assert pictures(read(tmp_path)) == 7 + 4 * 6
    (tmp_path / "m.parquet").unlink()
    assert cli("report").returncode == 0
    assert pictures(read(tmp_path)) == 0
    assert "Some images can’t be shown: " in read(tmp_path)

    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "a.tar", "w") as tar:
        for row, image in enumerate(images):
            member = tarfile.TarInfo(f"{row}.png")
            member.size = len(image)
            tar.addfile(member, io.BytesIO(image))
    make_run(tmp_path / "shard-scores", tmp_path / "shards", [1.0, 2, 3, 4, 5, 6])
    assert cli("report", "shard-scores", "--images", "3").returncode == 0
    assert pictures(read(tmp_path)) == 7 + 4 * 3


def test_images_that_are_gone_or_broken_since_are_placeholders(cli, tmp_path):
    names = ["ok.png", "gone.png", "broken.png", "folder.png"]
    (tmp_path / "m.csv").write_text("\n".join(["path", *names]))
    (tmp_path / "ok.png").write_bytes(encoded(pixels(3000, 10)))
    (tmp_path / "broken.png").write_text("no more")
    (tmp_path / "folder.png").mkdir()
    some_run(tmp_path, tmp_path / "m.csv", 4)
    (tmp_path / "m.csv").unlink()  # paths and folder are known without it
    assert cli("report").returncode == 0
    html = read(tmp_path)
    problems = re.findall(r'class="placeholder" role="img" aria-label="row (\d), score [\d.]+: ([^"]*)"', html)
    assert set(problems) == {("1", "image not found"), ("2", "undecodable now"), ("3", "unreadable now")}
    assert pictures(html) == html.count("row 0: ok.png</span>") >= 4


def test_an_unfinished_run_is_shown_as_one(cli, tmp_path):
    (tmp_path / "m.csv").write_text("\n".join(["path", *(f"{row}.png" for row in range(12))]))
    run = some_run(tmp_path, tmp_path / "m.csv", 12, complete=False)
    (run / "part-000001.parquet").unlink()
    outcome = cli("report")
    assert outcome.returncode == 0
    assert outcome.stdout.startswith("8 rows, 8 with a score, unfinished\n")
    html = read(tmp_path)
    assert "This run is not complete." in html
    assert "(parts missing before the last one: 1)" in html
    assert "known once the run is complete" in html
    for part in run.glob("part-*"):
        part.unlink()
    assert cli("report").stdout.startswith("0 rows, 0 with a score, unfinished\n")
    assert "No image has a score yet." in read(tmp_path)


def test_a_run_without_a_single_score(cli, tmp_path):
    (tmp_path / "m.csv").write_text("path,g\na.png,x\nb.png,y\n")
    make_run(tmp_path / "scores", tmp_path / "m.csv", [None, None])
    make_run(tmp_path / "other", tmp_path / "m.csv", [None, 3.0])
    outcome = cli("report", "--by", "g", "--compare", "other")
    assert outcome.returncode == 0, outcome.stderr
    html = read(tmp_path)
    assert "No image has a score." in html
    assert "No image has a score in both runs." in html


@pytest.mark.parametrize("scores", [[2.5], [2.5, 2.5, 2.5], [0.0, 0.0], [-3e30, 3e30], [1e-30, 2e-30, 3e-30]])
def test_odd_scores_are_drawn(cli, tmp_path, scores):
    (tmp_path / "m.csv").write_text("\n".join(["path", *(f"{row}.png" for row in range(len(scores)))]))
    make_run(tmp_path / "scores", tmp_path / "m.csv", scores)
    outcome = cli("report")
    assert outcome.returncode == 0, outcome.stderr
    html = read(tmp_path)
    data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])
    assert data["kept"][0] == len(scores)
    assert not re.search(r"\b(nan|inf|infinity)\b", html[html.index("<main") : html.index("<script")].lower())


def test_the_comparison_is_exact(tmp_path):
    dice = np.random.default_rng(1)
    (tmp_path / "m.csv").write_text("\n".join(["path", *(f"{row}.png" for row in range(500))]))
    before = dice.normal(3, 1, 500).astype(np.float32)
    after = (before + dice.integers(-2, 3, 500) / 8).astype(np.float32)
    lost, found = {3, 77}, {4}
    ours = [None if row in lost else float(score) for row, score in enumerate(after)]
    theirs = [None if row in found else float(score) for row, score in enumerate(before)]
    make_run(tmp_path / "scores", tmp_path / "m.csv", ours, chunk_rows=64)
    make_run(tmp_path / "other", tmp_path / "m.csv", theirs, chunk_rows=100)
    comparison = compare(RunReader.open(tmp_path / "scores"), RunReader.open(tmp_path / "other"), 5)
    assert comparison.statuses == {("ok", "missing"): 2, ("missing", "ok"): 1}
    both = np.array([row not in lost | found for row in range(500)])
    change, moved = comparison.change, (after - before)[both]
    from scipy.stats import spearmanr

    assert change.images == 497
    assert change.srcc == pytest.approx(spearmanr(before[both], after[both]).statistic, abs=1e-12)
    assert change.mean == pytest.approx(moved.mean(dtype=np.float64), abs=1e-6)
    assert (change.risen, change.fallen) == ((moved > 0).sum(), (moved < 0).sum())
    assert change.quantiles == {q: np.sort(moved)[q * 496 // 100] for q in change.quantiles}
    rows = np.flatnonzero(both)
    exact = dict(zip(rows.tolist(), after[both].astype(np.float64) - before[both], strict=True))
    assert [mover.row for mover in change.most_risen] == sorted(exact, key=lambda row: (-exact[row], row))[:5]
    assert [mover.row for mover in change.most_fallen] == sorted(exact, key=lambda row: (exact[row], row))[:5]
    assert change.density.counts.sum() == change.histogram.counts.sum() == 497


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing: no such folder; name the folder that pscr-engine score wrote"),
        (["."], "no _run.json in it"),
        (["damaged"], "its _run.json is damaged"),
        (["scores", "--compare", "other"], "other: scored another manifest than scores"),
        (["scores", "--compare", "gone"], "gone: no such folder"),
        (["scores", "--by", "modle"], "no column 'modle' (columns: path, model)"),
        (["scores", "--caption", "text"], "no column 'text'"),
        (["scores", "--images", "101"], "--images 101: must be from 0 to 100"),
        (["scores", "--out", "m.csv"], "m.csv: is there already, and no earlier report"),
        (["scores", "--out", "scores"], "scores: is a folder"),
        (["scores", "--out", "no/report.html"], "no: no such folder"),
        (["scores", "--manifest", "gone.csv"], "gone.csv: no such file"),
        (["broken"], "part-000000.parquet: damaged"),
    ],
)
def test_what_cannot_be_done_is_one_line(cli, tmp_path, arguments, message):
    (tmp_path / "m.csv").write_text("path,model\na.png,x\n")
    (tmp_path / "n.csv").write_text("path\nb.png\n")
    some_run(tmp_path, tmp_path / "m.csv", 1)
    make_run(tmp_path / "other", tmp_path / "n.csv", [1.0])
    (make_run(tmp_path / "broken", tmp_path / "m.csv", [1.0]) / "part-000000.parquet").write_bytes(b"PAR1")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "_run.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    outcome = cli("report", *arguments)
    assert outcome.returncode == 2, outcome.stderr
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_column_with_too_many_values_is_refused(cli, tmp_path, monkeypatch):
    from pscr_engine.errors import ManifestError
    from pscr_engine.output.run_groups import read_groups

    (tmp_path / "m.csv").write_text("\n".join(["path", *(f"{row}.png" for row in range(20))]))
    run = RunReader.open(some_run(tmp_path, tmp_path / "m.csv", 20))
    with pytest.raises(ManifestError, match="column 'path' has more than 10 different values; choose one with fewer"):
        read_groups(run, run.open_manifest(), "path", 10)


@pytest.mark.medium
def test_without_jinja2_one_line_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from pscr_engine.cli import main\nsys.argv = ['pscr-engine', 'report']\nmain()"
    )
    outcome = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert outcome.returncode == 1
    assert outcome.stderr == "error: an HTML page needs jinja2: pip install 'pscr-engine[report]'\n"


def test_a_run_of_an_earlier_version_is_read(cli, tmp_path):
    (tmp_path / "m.csv").write_text("path\na.png\nb.png\n")
    run = make_run(tmp_path / "scores", tmp_path / "m.csv", [3.5, 4.0])
    (run / "_run.json").rename(run / "run.json")
    before = sorted(os.listdir(run))
    outcome = cli("report", run)
    assert outcome.returncode == 0, outcome.stderr
    assert sorted(os.listdir(run)) == before  # who only reads renames nothing
    assert cli("select", run, "--top", "1", "--out", "kept.parquet").returncode == 0


def test_the_speed_is_not_the_last_processs_alone(cli, tmp_path):
    (tmp_path / "m.csv").write_text("path\n" + "a.png\n" * 8)
    run = make_run(tmp_path / "scores", tmp_path / "m.csv", [3.5] * 8)
    success = json.loads((run / "_SUCCESS").read_text())
    facts = {"host": "<b>here", "seconds": 2.0}
    success |= {"scored_by_last_run": 2, "seconds": 2.0, "images_per_second": 1.0}
    success["processes"] = [
        {"id": "a", "started": "2026-01-01T12:00:00.000+00:00", "images": 8, **facts},
        {"id": "b", "started": "2026-01-02T12:00:00.000+00:00", "images": 2, "shard": "1/2", **facts},
    ]
    (run / "_SUCCESS").write_text(json.dumps(success))
    assert cli("report", run).returncode == 0
    html = read(tmp_path)
    assert "per process, on average over 2" in html
    assert "2.5" in html
    assert "4.0 of 2 processes together, for 10 images" in html
    assert "8 images in 2.0 s on &lt;b&gt;here, started 2026-01-01 12:00:00 UTC" in html
    assert "2 images in 2.0 s on &lt;b&gt;here, shard 1/2, started 2026-01-02 12:00:00 UTC" in html
    assert "Seconds by stage of the process that finished last, for 2 images" in html
    del success["processes"]  # of an earlier version
    (run / "_SUCCESS").write_text(json.dumps(success))
    assert cli("report", run).returncode == 0
    assert "on cpu, for the 2 images scored last" in read(tmp_path)
