import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter

import pytest

from pscr_engine.cli import logs
from pscr_engine.cli.score_progress import describe, duration, run_progress
from pscr_engine.records import STAGES
from pscr_engine.runners.progress import RunProgress, Snapshot

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle


def snapshot(**changes):
    stages = dict.fromkeys(STAGES, (0, 0.0)) | {"decode": (1200, 30.0), "infer": (1200, 90.0)}
    facts = {
        "rows": 2200,
        "total": 10_000,
        "scored": 1200,
        "status": Counter(ok=1190, missing=7, too_large=3),
        "seconds": 60.0,
        "stages": stages,
    }
    return Snapshot(**facts | changes)


def test_one_line_says_it_all():
    assert describe(snapshot()) == (
        "2,200 of 10,000 images, 20.0/s, 6 min 30 s left; 7 missing, 3 too_large; time: decode 25% infer 75%"
    )
    assert describe(snapshot(total=None, status=Counter(ok=1200))) == (
        "2,200 images, 20.0/s; time: decode 25% infer 75%"
    )
    assert describe(snapshot(scored=0, status=Counter(), seconds=0.0)).startswith("2,200 of 10,000 images, 0.0/s; ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3600, "1 h 00 min"), (90_000, "25 h 00 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_json_events(capsys):
    logs.configure(as_json=True)
    try:
        with run_progress(as_json=True) as show:
            show(snapshot())  # too soon to show
            show(snapshot(final=True))
        logs.error("it is broken")
    finally:
        logs.configure(as_json=False)
    done, error = map(json.loads, capsys.readouterr().err.splitlines())
    assert done["event"] == "done"
    assert (done["rows"], done["total"], done["scored"], done["seconds_left"]) == (2200, 10_000, 1200, 390.0)
    assert done["status"] == {"ok": 1190, "missing": 7, "too_large": 3}
    assert done["stage_shares"]["infer"] == 0.75
    assert (error["event"], error["message"]) == ("error", "it is broken")
    assert error["time"].endswith("+00:00")


def test_what_a_dead_worker_had_not_committed_is_not_done():
    seen = []
    progression = RunProgress(100, 10, seen.append)
    stages = dict.fromkeys(STAGES, (1, 1.0))
    progression.moved("a", Counter(ok=5), stages)
    assert [snapshot.rows for snapshot in seen] == [15]
    progression.moved("b", Counter(ok=3, missing=1), stages)
    assert len(seen) == 1  # too soon to say more
    assert progression.snapshot().rows == 19
    progression.gone("a")
    progression.committed("b", Counter(ok=6, missing=2), stages)
    now = progression.snapshot()
    assert (now.rows, now.scored, now.failures) == (18, 8, {"missing": 2})
    assert now.stages["decode"] == (2, 2.0)


def test_json_log_of_a_run(cli, tmp_path):
    make_bundle(tmp_path / "model.pscr")
    (tmp_path / "a.png").write_bytes(encoded(pixels(40, 40)))
    (tmp_path / "m.csv").write_text("path\na.png\ngone.png\n")
    outcome = cli("score", "--manifest", "m.csv", "--log-format", "json", "--max-failure-rate", "0.1")
    assert outcome.returncode == 3
    events = [json.loads(line) for line in outcome.stderr.splitlines()]
    assert [event["event"] for event in events] == ["log", "done", "error"]
    assert events[1]["status"] == {"ok": 1, "missing": 1}
    assert events[2]["message"].startswith("1 of 2 images failed")


@pytest.mark.medium
@pytest.mark.parametrize("columns", [120, 40])
def test_a_terminal_gets_a_bar(tmp_path, columns):
    make_bundle(tmp_path / "model.pscr")
    for index in range(30):
        (tmp_path / f"{index:02d}.png").write_bytes(encoded(pixels(300, 300, index)))
    names = "\n".join(f"{row % 31:02d}.png" for row in range(1500))  # 30.png is missing
    (tmp_path / "m.csv").write_text(f"path\n{names}\n")
    text = on_a_terminal(tmp_path, "score", "m.csv", "--out", "my scores", columns=columns)
    assert "━" in text
    assert "missing" in text
    if columns == 120:
        assert "of 1,500 images" in text
        assert "/s, " in text
        assert "time: " in text
    assert re.search(r"\d+% [\d,]+, \d+ s left", text) or columns == 120
    assert "next:   pscr-engine report 'my scores'\r\n        pscr-engine select 'my scores' --top 10%\r\n" in text


def test_json_logs_have_no_advice(tmp_path):
    make_bundle(tmp_path / "model.pscr")
    (tmp_path / "a.png").write_bytes(encoded(pixels(40, 40)))
    assert "next:" not in on_a_terminal(tmp_path, "score", "a.png", "--log-format", "json", columns=120)


def on_a_terminal(folder, *arguments, columns):
    """Run a command whose stdout and stderr are a terminal, and return what it wrote there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pscr_engine", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen(command, cwd=folder, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not block:
            break
        shown += block
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()
