"""Messages speak the language of whoever is to act on them: options in a command, parameters in Python."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pscr_export.export import ExportConfig
from pscr_training.config import TrainConfig
from pscr_training.data.open import Source
from pscr_training.evaluate import EvaluateConfig

from pscr_engine.backends.tensorrt.compiling import CompileSettings
from pscr_engine.bench.measure import BenchConfig
from pscr_engine.cli.group import COMMANDS, load
from pscr_engine.config import RayOptions, ScoreConfig
from pscr_engine.errors import UsageError, command_line, is_on_command_line, option, speak
from pscr_engine.manifests import ManifestOptions
from pscr_engine.report.report import ReportConfig
from pscr_engine.scorer import Scorer
from pscr_engine.selection.rule import Rule
from pscr_engine.selection.select import select
from tests.conftest import CommandLine
from tests.helpers.tiny import make_bundle

_ROOT = Path(__file__).parent.parent
_SOURCES = [
    file
    for folder in ("pscr_engine", "export/pscr_export", "training/pscr_training")
    for file in sorted((_ROOT / folder).rglob("*.py"))
    if "cli" not in file.parts and not file.name.startswith("cli") and file.name not in ("demo.py", "build.py")
]
_CALLED = (
    Scorer.open,
    Scorer.score,
    select,
    Source,
    ScoreConfig,
    RayOptions,
    ManifestOptions,
    ExportConfig,
    TrainConfig,
    EvaluateConfig,
    CompileSettings,
    BenchConfig,
    ReportConfig,
    Rule,
)


def test_an_option_is_named_as_its_caller_knows_it() -> None:
    assert not is_on_command_line()
    settings = [
        option("--batch-size"),
        option("--runner", "ray"),
        option("--max-failure-rate", 1),
        option("--overwrite", True),
        option("--ray-address"),
    ]
    assert settings == ["batch_size", 'runner="ray"', "max_failure_rate=1", "overwrite=True", "address"]
    with command_line():
        assert option("--batch-size") == "--batch-size"
        assert option("--runner", "ray") == "--runner ray"
        assert option("--overwrite", True) == "--overwrite"
    assert not is_on_command_line()


def test_the_language_comes_back_after_an_error() -> None:

    def fail() -> None:
        with command_line():
            raise UsageError(option("--batch-size"))

    with pytest.raises(UsageError, match="--batch-size"):
        fail()
    with pytest.raises(UsageError, match=r"^batch_size 0: must be from 1"):
        ScoreConfig("images.csv", batch_size=0)


def test_commands_and_the_python_interface_name_the_same_mistake_differently(tmp_path: Path, cli: CommandLine) -> None:
    make_bundle(tmp_path / "model.pscr")
    (tmp_path / "images.csv").write_text("path\na.png\n")
    done = cli("score", "--manifest", "images.csv", "--devices", "gpu")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --devices 'gpu': 'gpu' is no device")
    with pytest.raises(UsageError, match=r"^device 'gpu': 'gpu' is no device"):
        Scorer.open(tmp_path / "model.pscr", device="gpu")
    config = ScoreConfig(str(tmp_path / "images.csv"), tmp_path / "model.pscr", tmp_path / "scores", devices="gpu")
    with pytest.raises(UsageError, match=r"^devices 'gpu': 'gpu' is no device"):
        Scorer.score_manifest(config)
    with pytest.raises(UsageError, match=r'^shard is for runs without a coordinator: with runner="ray" leave it out'):
        ScoreConfig("images.csv", shard="0/2", runner="ray")  # text is welcome
    with pytest.raises(UsageError, match=r'^address is for a Ray cluster: add runner="ray"'):
        ScoreConfig("images.csv", ray=RayOptions("local"))


def test_worker_processes_speak_as_their_run_does(tmp_path: Path, cli: CommandLine) -> None:
    from pscr_engine.runners.worker import WorkerSetup

    setup = WorkerSetup(ScoreConfig("x"), None, "cpu", {}, on_command_line=True)
    try:
        setup.speak()
        assert option("--out") == "--out"
        setup._replace(on_command_line=False).speak()
        assert option("--out") == "out"
    finally:
        speak(on_command_line=False)


@pytest.mark.medium
def test_no_message_names_an_option_in_plain_text() -> None:
    plain = [
        f"{file.relative_to(_ROOT)}:{line}: {text}"
        for file in _SOURCES
        for line, text in _texts(file)
        if re.search(r"(?<![\w-])--[a-z][a-z-]+ ?\S", re.sub(r"(pscr-engine \S+|ray start)[^;]*", "", text))
        and not re.fullmatch(r"--[a-z-]+| --.*", text)  # on its way to `option`, or a piece of a command
    ]
    assert plain == []


def test_every_named_setting_is_an_option_and_a_parameter() -> None:
    options = {
        name
        for entry in COMMANDS.values()
        for parameter in load(entry.target).params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
    }
    parameters = {name for each in _CALLED for name in inspect.signature(each).parameters}
    named = {flag for file in _SOURCES for flag in re.findall(r"option\(['\"](--[a-z-]+)", file.read_text())}
    assert len(named) > 40
    assert named - options == set()
    unknown = {option(flag) for flag in named} - parameters
    assert unknown == {"file"}  # of a plot


def _texts(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each string that is no docstring, joined where it is written in pieces."""
    tree = ast.parse(file.read_text())
    documented = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    called = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("option", "resolve_devices"):
            called |= {id(argument) for argument in node.args}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pieces = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(map(str, pieces))
            called |= {id(part) for part in node.values}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented | called:
            yield node.lineno, node.value


def test_the_readmes_names_can_be_imported_from_the_package() -> None:
    program = (
        "import sys, pscr_engine; assert 'pscr_engine.config' not in sys.modules\n"
        "from pscr_engine import PscrError, ScoreConfig\n"
        "assert ScoreConfig('a.csv').manifest == 'a.csv' and issubclass(PscrError, Exception)\n"
        "assert not hasattr(pscr_engine, 'ScroeConfig')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
