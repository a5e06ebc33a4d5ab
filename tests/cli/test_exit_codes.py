import subprocess
import sys

import pytest

from pscr_engine.errors import install_advice


def test_an_interrupt_within_exec_ends_with_130_too():
    program = """
import click, sys
from pscr_engine.cli.run_command import run

@click.command()
def command():
    exec("raise KeyboardInterrupt")

sys.exit(run(command))
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (process.returncode, process.stderr.strip()) == (130, "interrupted")


WITHOUT = """
import sys

import pytest
from importlib.abc import MetaPathFinder

class Without(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
from pscr_engine.cli.group import cli
from pscr_engine.cli.run_command import run

sys.exit(run(cli))
"""


def run_without(*arguments, packages, cwd):
    program = WITHOUT.format(packages=packages)
    return subprocess.run([sys.executable, "-c", program, *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "package", "extras"),
    [
        (["train", "--dataset", "labels.csv"], "scipy", "cpu,export,train"),
        (["evaluate", "best.pt"], "scipy", "cpu,export,train"),
        (["evaluate", "best.pt", "--plot", "p.svg"], "matplotlib", "cpu,export,train"),
        (["demo", "--train"], "scipy", "cpu,export,train"),
        (["export", "--ckpt", "best.pt"], "timm", "cpu,export"),
        (["score", "images.csv", "--keep-above", "3"], "onnx", "cpu,early"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_all_extras_that_the_command_needs(
    arguments, package, extras, tmp_path
):
    outcome = run_without(*arguments, packages=[package], cwd=tmp_path)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.endswith(f" needs {package}: {install_advice(extras)}\n")
    assert outcome.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
