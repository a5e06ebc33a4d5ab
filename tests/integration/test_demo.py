import re

import pyarrow.parquet as pq
import pytest


@pytest.mark.slow
def test_demo_runs_the_whole_path(cli, tmp_path):
    outcome = cli("demo", "--images", "5", "--train-images", "20", "--epochs", "1")
    assert outcome.returncode == 0, outcome.stderr
    assert re.search(r"SRCC of 4 scores with the labels of these unseen images: -?\d\.\d{3}\n", outcome.stdout)
    assert outcome.stdout.endswith("scores: demo/scores/part-*.parquet\n")
    table = pq.read_table(tmp_path / "demo" / "scores" / "part-000000.parquet").to_pylist()
    assert [row["status"] for row in table] == ["ok", "ok", "undecodable", "ok", "ok"]
    assert "all digests match" in cli("inspect", "demo/model.pscr").stdout


def test_demo_touches_no_folder_that_is_not_its_own(cli, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine").write_text("x")
    outcome = cli("demo")
    assert outcome.returncode == 2
    assert "was not made by the demo" in outcome.stderr
    assert (tmp_path / "demo" / "mine").exists()
