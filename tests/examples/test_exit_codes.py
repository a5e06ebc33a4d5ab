"""A step of a workflow: real exit codes, and what Airflow and Prefect themselves make of them, where installed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from pscr_engine.output.local_folder import LocalFolder
from pscr_engine.output.shard import WHOLE

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


@pytest.mark.slow
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
    lock = LocalFolder(tmp_path / "scores").lock(WHOLE)
    assert step("good.csv", tiny.path)[0] == "retry"  # this process is at work there
    lock.release()
    assert step("nowhere.csv", tiny.path, "--out", "nowhere")[0] == "fail"
    outcome, messages = step("good.csv", damaged, "--out", "damaged")
    assert outcome == "retry"
    assert "error: " in messages  # the reason is in the step's log


def test_a_killed_run_is_tried_again_and_a_missing_command_fails(module, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "codes.json").write_text("[-9, -15, 130]")
    module.COMMAND = [sys.executable, "-c", STUB]
    assert [module.score("--manifest", "a b.csv") for _ in range(3)] == ["retry"] * 3
    assert (tmp_path / "calls.txt").read_text() == "score --manifest a b.csv\n" * 3
    module.COMMAND = [str(tmp_path / "pscr-engine")]
    assert module.score() == "fail"
    (tmp_path / "pscr-engine").write_text("not executable")
    assert module.score() == "fail"
    assert capsys.readouterr().err.count(str(tmp_path / "pscr-engine")) == 2


def test_a_time_limit_ends_the_command(module, tmp_path):
    def too_late(*_):
        raise TimeoutError

    pid = tmp_path / "pid"
    lines = ["import os, pathlib, signal, time", f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))"]
    lines += ["os.kill(os.getppid(), signal.SIGALRM)", "time.sleep(100)"]  # the time is over once it is at work
    module.COMMAND = [sys.executable, "-c", "\n".join(lines)]
    before = signal.signal(signal.SIGALRM, too_late)
    try:
        with pytest.raises(TimeoutError):
            module.score()
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


CASES = {  # the codes that there are, those that are asked for, how the task ends and its workflow, is it published
    "done": ([0, 9], 1, "done", "success", True),
    "retried": ([1, -9, 0, 9], 3, "done", "success", True),
    "tried too often": ([1] * 9, 6, "retry", "failed", False),
    "fail": ([2, 9], 1, "fail", "failed", False),
    "skip": ([3, 9], 1, "skip", "success", False),
}
CASES_LOOP = """
import json, pathlib
published = pathlib.Path("published.txt")
for name, codes in {codes}.items():
    pathlib.Path("codes.json").write_text(json.dumps(codes))
    published.unlink(missing_ok=True)
    task, workflow = run()
    left = len(json.loads(pathlib.Path("codes.json").read_text()))
    print("CASE", json.dumps([name, len(codes) - left, task, workflow, published.exists()]), flush=True)
"""


def outcomes(folder, library, run, file="workflow.py"):
    """Run the page's block for a library, and for each case the workflow by `run`; return what became of each."""
    texts = [text for _, language, text in blocks(ROOT / "docs" / "recipes.md") if language == "python"]
    (text,) = [text for text in texts if f"from {library}" in text]
    (delay,) = [delay for delay in ("retry_delay_seconds=60", "retry_delay=timedelta(minutes=1)") if delay in text]
    text = text.replace(delay, delay.replace("60", "0").replace("minutes=1", "0"))
    assert "def publish(): ..." in text
    text = text.replace("def publish(): ...", "def publish():\n    open('published.txt', 'x').close()")
    (folder / "stub.py").write_text(STUB)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).with_name("exit_codes.py").write_text(FILE.read_text())
    setup = "import sys, exit_codes\nexit_codes.COMMAND = [sys.executable, 'stub.py']\n"
    loop = CASES_LOOP.replace("{codes}", repr({name: case[0] for name, case in CASES.items()}))
    (folder / file).write_text(f"{setup}{text}\nif __name__ == '__main__':\n{textwrap.indent(run + loop, '    ')}")
    process = subprocess.run(
        [sys.executable, file], cwd=folder, capture_output=True, text=True, timeout=500, check=False
    )
    assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"
    lines = [line.removeprefix("CASE ") for line in process.stdout.splitlines() if line.startswith("CASE ")]
    return {name: tuple(rest) for name, *rest in map(json.loads, lines)}


@pytest.mark.slow
def test_prefect(tmp_path, monkeypatch):
    pytest.importorskip("prefect")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    run = """
def run():
    state = curate(return_state=True)
    ends = {"Completed": "success", "Failed": "failed"}
    return state.result(raise_on_failure=False).name, ends[state.name]
"""
    assert outcomes(tmp_path, "prefect", run) == {name: case[1:] for name, case in CASES.items()}


@pytest.mark.slow
def test_airflow(tmp_path, monkeypatch):
    pytest.importorskip("airflow")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path / "dags"))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True, timeout=300)
    run = """
dag = curate()
def run():
    ran = dag.test()
    task, = [task for task in ran.get_task_instances() if task.task_id == "score_images"]
    return task.state, ran.state
"""
    states = {"done": "success", "retry": "failed", "fail": "failed", "skip": "skipped"}
    expected = {name: (case[1], states[case[2]], *case[3:]) for name, case in CASES.items()}
    assert outcomes(tmp_path, "airflow", run, "dags/curate.py") == expected
