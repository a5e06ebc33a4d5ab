import re

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pscr_engine.cli.group import cli as cli_group
from pscr_engine.models import DEFAULT_MODEL

from ..helpers.shipped import ship


def test_demo_scores_made_up_images_with_the_shipped_model(cli_with_model, tmp_path):
    outcome = cli_with_model("demo", "--images", 9)
    assert outcome.returncode == 0, outcome.stderr
    text = outcome.stdout
    assert f"--bundle {DEFAULT_MODEL} --out demo/scores\n" in text
    assert re.search(r"^  0  0000\.jpg +\d\.\d{4} +-?\d+\.\d{4} +\d\.\d{4}  ok$", text, re.MULTILINE)
    assert re.search(r"^  2  0002\.jpg +\d\.\d{4} +- +-  undecodable$", text, re.MULTILINE)
    assert re.search(r"^\.\.\.  9 rows, 1 failed, [\d.]+ images/s$", text, re.MULTILINE)
    assert re.search(r"^lowest score -?[\d.]+, median -?[\d.]+, highest -?[\d.]+$", text, re.MULTILINE)
    assert re.search(r"^SRCC of 8 scores with the labels: -?\d\.\d{3}$", text, re.MULTILINE)
    assert "images and labels are made up" in text
    assert text.endswith("scores: demo/scores/part-*.parquet\nreport: demo/report.html, open it in a browser\n")
    table = pq.read_table(tmp_path / "demo" / "scores" / "part-000000.parquet").to_pylist()
    assert [row["status"] for row in table] == ["ok", "ok", "undecodable", *["ok"] * 6]
    assert "9 images" in (tmp_path / "demo" / "report.html").read_text()
    again = cli_with_model("demo", "--images", 2, "--seed", 5)
    assert "...  2 rows, 0 failed" in again.stdout


@pytest.mark.slow
def test_demo_with_train_runs_the_whole_path(cli, tmp_path):
    outcome = cli("demo", "--train", "--images", "5", "--train-images", "20", "--epochs", "1")
    assert outcome.returncode == 0, outcome.stderr
    assert [line[:2] for line in outcome.stdout.splitlines() if re.match(r"\d\. ", line)] == [
        "1.", "2.", "3.", "4.", "5.", "6.",
    ]  # fmt: skip
    assert re.search(r"SRCC of 4 scores with the labels: -?\d\.\d{3}\n", outcome.stdout)
    table = pq.read_table(tmp_path / "demo" / "scores" / "part-000000.parquet").to_pylist()
    assert [row["status"] for row in table] == ["ok", "ok", "undecodable", "ok", "ok"]
    assert "all digests match" in cli("inspect", "demo/model.pscr").stdout


@pytest.mark.parametrize("train", [[], ["--train"]])
def test_demo_touches_no_folder_that_is_not_its_own(cli, tmp_path, train):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine").write_text("x")
    outcome = cli("demo", *train)
    assert outcome.returncode == 2
    assert "was not made by the demo" in outcome.stderr
    assert (tmp_path / "demo" / "mine").exists()


@pytest.mark.parametrize("option", [["--epochs", "3"], ["--train-images", "500"]])
def test_options_about_training_are_not_ignored(cli, tmp_path, option):
    outcome = cli("demo", *option)
    assert outcome.returncode == 2
    assert outcome.stderr == f"error: {option[0]} is about training: add --train, or leave it out\n"
    assert not (tmp_path / "demo").exists()


def test_demo_without_a_model_says_what_to_do(cli_without_model, tmp_path):
    outcome = cli_without_model("demo")
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert outcome.stderr == "error: no model is shipped with this pscr-engine; pscr-engine demo --train makes one\n"
    assert not (tmp_path / "demo").exists()


def test_demo_without_jinja2_leaves_the_report_out(models_folder, tmp_path, monkeypatch):
    ship(models_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pscr_engine.cli.demo.find_spec", lambda name: None if name == "jinja2" else name)
    outcome = CliRunner().invoke(cli_group, ["demo", "--images", "3"])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.endswith("report: none, it needs jinja2: pip install 'pscr-engine[report]'\n")
    assert not (tmp_path / "demo" / "report.html").exists()
