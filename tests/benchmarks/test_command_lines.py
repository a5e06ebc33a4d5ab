"""Benchmarks measure for minutes: a wrong word, or a question for help, must not start one."""

import runpy
import sys
from pathlib import Path

import pytest

import benchmarks

FILES = [file for root in benchmarks.__path__ for file in sorted(Path(root).glob("*.py"))]
PROGRAMS = [file.stem for file in FILES if 'if __name__ == "__main__"' in file.read_text()]
PROGRAMS += ["agiqa3k", "gpu_kit", "peers"]


def run(program, monkeypatch):
    """Run a program as `python -m` does, in this process: not as the module that another test has imported."""
    for name in (f"benchmarks.{program}", f"benchmarks.{program}.__main__"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    runpy.run_module(f"benchmarks.{program}", run_name="__main__")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--no-such-option", 2)])
def test_help_and_unknown_words_measure_nothing(program, word, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [program, word])
    with pytest.raises(SystemExit) as end:
        run(program, monkeypatch)
    assert end.value.code == code
    out, err = capsys.readouterr()
    assert "usage: " in (err if code else out)


@pytest.mark.parametrize("program", ["pipeline", "int8", "batch_size", "plans", "ray_runner"])
def test_words_that_a_benchmark_does_not_know(program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [program, "resnet19"])
    with pytest.raises(SystemExit) as end:
        run(program, monkeypatch)
    assert end.value.code == 2
    assert "resnet19: there are " in capsys.readouterr().err
