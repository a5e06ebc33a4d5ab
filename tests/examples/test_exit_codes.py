"""A step of a workflow: real exit codes, and what Airflow and Prefect make of them where they are installed."""

import importlib.util
import json
import subprocess
import sys

import pytest

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle
from ..test_documents import ROOT, blocks

FILE = ROOT / "examples" / "exit_codes.py"
# Ends with the next of the codes that a test has written down; -9 by killing itself. Notes each call.
STUB = """
import json, os, sys
codes = json.load(open("codes.json"))
json.dump(codes[1:], open("codes.json", "w"))
print(*sys.argv[1:], file=open("calls.txt", "a"))
os.kill(os.getpid(), -codes[0]) if codes[0] < 0 else sys.exit(codes[0])
"""


@pytest.fixture
def module():
    spec = importlib.util.spec_from_file_location("exit_codes", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_code_has_its_outcome(module):
    outcomes = {
        "done": [0],
        "retry": [1, 130, 137, 143, -2, -6, -9, -11, -15],
        "skip": [3],
        "fail": [2, 4, 99, 126, 127, 128],
    }
    assert {name: [code for code in codes if module.outcome(code) == name] for name, codes in outcomes.items()} == (
        outcomes
    )
    assert set(outcomes) == set(module.Outcome)


def test_the_command_has_these_codes(tmp_path, tiny):
    (tmp_path / "good.csv").write_text("path\na.png\nb.png\n")
    (tmp_path / "none.csv").write_text("path\nx.png\ny.png\n")
    (tmp_path / "a.png").write_bytes(encoded(pixels(64, 64)))
    damaged = make_bundle(tmp_path / "damaged.pscr").path
    (damaged / "exemplars.safetensors").write_bytes(b"damaged")

    def step(manifest, bundle, *more):
        command = [sys.executable, FILE, "--manifest", manifest, "--bundle", bundle, *more]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert process.returncode == 0, process.stderr
        return process.stdout.splitlines()[-1], process.stderr

    assert step("good.csv", tiny.path)[0] == "done"  # one of the two images isn't there: a row
    assert step("good.csv", tiny.path)[0] == "done"  # the same command on a complete run
    assert step("good.csv", tiny.path, "--max-failure-rate", "0.1")[0] == "skip"
    assert step("none.csv", tiny.path, "--out", "none")[0] == "skip"
    assert step("none.csv", tiny.path)[0] == "fail"  # another manifest's folder
    assert step("nowhere.csv", tiny.path, "--out", "nowhere")[0] == "fail"
    outcome, messages = step("good.csv", damaged, "--out", "damaged")
    assert outcome == "retry"
    assert "error: " in messages  # the reason is in the step's log


def test_a_killed_run_is_tried_again_and_a_missing_command_is_an_error(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "codes.json").write_text("[-9, -15, 130]")
    module.COMMAND = [sys.executable, "-c", STUB]
    assert [module.score("--manifest", "a b.csv") for _ in range(3)] == ["retry"] * 3
    assert (tmp_path / "calls.txt").read_text() == "score --manifest a b.csv\n" * 3
    module.COMMAND = [str(tmp_path / "pscr-engine")]
    with pytest.raises(FileNotFoundError):
        module.score()


def follow(folder, library, then, codes):
    """Run the page's lines for a library, with a command that ends with these codes; return how often it was called."""
    texts = [text for _, language, text in blocks(ROOT / "docs" / "recipes.md") if language == "python"]
    (text,) = [text for text in texts if f"from {library}" in text and "exit_codes" in text]
    for given, quick in (("retry_delay_seconds=60", "retry_delay_seconds=0"), ("minutes=1", "seconds=0")):
        text = text.replace(given, quick)
    assert "def publish(): ..." in text
    text = text.replace("def publish(): ...", "def publish(): print('published', file=open('published.txt', 'a'))")
    (folder / "stub.py").write_text(STUB)
    (folder / "codes.json").write_text(json.dumps(codes))
    (folder / "exit_codes.py").write_text(FILE.read_text())
    setup = "import sys, exit_codes\nexit_codes.COMMAND = [sys.executable, 'stub.py']\n"
    homes = f"import os\nos.environ.update(PREFECT_HOME={str(folder)!r}, AIRFLOW_HOME={str(folder)!r})\n"
    program = homes + setup + text + then
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"
    return len((folder / "calls.txt").read_text().splitlines()), process.stdout


CASES = {
    "done": ([0], 1),
    "retried": ([1, -9, 0], 3),
    "fail": ([2], 1),
    "skip": ([3], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_prefect(tmp_path, case):
    pytest.importorskip("prefect")
    codes, calls = CASES[case]
    called, printed = follow(tmp_path, "prefect", "\nprint('state', curate(return_state=True).name)\n", codes)
    assert called == calls
    assert printed.splitlines()[-1] == f"state {'done' if case == 'retried' else case}"
    assert (tmp_path / "published.txt").exists() == (case in ("done", "retried"))


@pytest.mark.slow
@pytest.mark.parametrize(("code", "raised"), [(0, None), (1, "RuntimeError"), (2, "AirflowFailException"), (3, "AirflowSkipException")])
def test_airflow(tmp_path, code, raised):
    pytest.importorskip("airflow")
    then = "\ntry:\n    score_images.function()\nexcept Exception as error:\n    print('raised', type(error).__name__)\n"
    called, printed = follow(tmp_path, "airflow", then, [code])
    assert called == 1
    assert [line for line in printed.splitlines() if line.startswith("raised")] == ([f"raised {raised}"] if raised else [])
