import json
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from pscr_engine.cli.group import COMMANDS, cli

from ..helpers.tiny import make_bundle


def commands():
    context = click.Context(cli)
    return [(name, cli.get_command(context, name)) for name in COMMANDS]


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_and_option_is_documented(name, command):
    assert command.help
    assert command.help.splitlines()[0] == COMMANDS[name].help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"
    shown = CliRunner().invoke(cli, [name, "--help"])
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 110


def test_help_and_version(cli):
    assert "score" in cli("--help").stdout
    assert re.fullmatch(r"pscr-engine, version [\d.]+\n", cli("--version").stdout)
    nothing = cli()
    assert nothing.returncode == 2
    assert "Commands:" in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scroe"], "No such command 'scroe'. Did you mean score?"),
        (["raport"], "No such command 'raport'. Did you mean report or export? (see "),
        (["Score", "x"], "Did you mean score?"),
        (["xyzzy"], "No such command 'xyzzy'. (see "),
        (["help"], "No such command 'help'. Write pscr-engine --help, or pscr-engine COMMAND --help."),
        (["version"], "No such command 'version'. Write pscr-engine --version."),
        (["score"], "name the images to score: pscr-engine score images.parquet, or a folder"),
        (["score", "m.csv", "--manifest", "n.csv"], "two manifests are named, m.csv and --manifest n.csv: name one"),
        (["score", "a.png", "b.png", "c.png"], "3 manifests are named, a.png, b.png, …: name one; a glob in quotes"),
        (["score", "--manifest", "m", "--bundle", "no/model"], "no such bundle; make a bundle with pscr-engine export"),
        (["score", "--manifest", "m", "--batch-size", "many"], "neither a number nor auto"),
        (["score", "--manifest", "m", "--batch-size", "0"], "--batch-size 0: must be from 1 to 4096"),
        (["score", "--manifest", "m", "--max-failure-rate", "2"], "must be from 0 to 1"),
        (["score", "--manifest", "m", "--overwrite", "--retry-failed"], "choose one"),
        (["score", "--manifest", "m", "--devices", "cuda:0"], "there is no cuda:0 here"),
        (["inspect", "nothing"], "no such bundle"),
        (["train", "--out", "x"], "name labelled images with --dataset"),
        (["train", "--dataset", "agiqa-3k"], "name its folder with --data"),
        (["train", "--dataset", "x.csv", "--patch-size", "9"], "--patch-size 9: must be from 32 to 1024"),
        (["export"], "Missing option '--ckpt'"),
        (
            ["export", "--ckpt", "x.pt", "--exemplars", "e.csv", "--precision", "fp8"],
            "choose from fp32, fp16",
        ),
        (["export", "--ckpt", "x.pt", "--exemplars", "e.csv"], "x.pt: no such file; name a checkpoint"),
        (["export", "--ckpt", "x", "--exemplars", "e", "--num-exemplars", "few"], "neither a number nor all"),
        (["export", "--ckpt", "x", "--exemplars", "e", "--label-range", "5", "1"], "the first must be smaller"),
        (["export", "--ckpt", "x", "--exemplars", "e", "--label-range", "0", "inf"], "both finite"),
    ],
)
def test_bad_usage_is_one_line(cli, arguments, message):
    outcome = cli(*arguments)
    assert outcome.returncode in (1, 2)
    assert outcome.stdout == ""
    assert message in outcome.stderr
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "nothing"],
        ["score", "list.txt", "--bundle", "nothing"],
        ["score", "list.txt", "--bundle", "no/model"],
        ["inspect", "nothing"],
        ["bench", "--bundle", "nothing"],
        ["compile", "--bundle", "nothing"],
        ["train", "--dataset", "nothing.csv"],
        ["train", "--dataset", "agiqa-3k", "--data", "nothing"],
        ["export", "--ckpt", "nothing.pt"],
        ["evaluate", "nothing.pt"],
    ],
)
def test_what_is_named_and_is_not_there_is_wrong_usage(cli, tmp_path, arguments):
    (tmp_path / "list.txt").write_text("")
    outcome = cli(*arguments)
    assert outcome.returncode == 2
    assert re.search("error: .*(nothing|no/model).*(no such|needs|name)", outcome.stderr), outcome.stderr
    assert not [path.name for path in tmp_path.iterdir() if path.name != "list.txt"]


@pytest.mark.parametrize(
    ("command", "extras"),
    [("export --ckpt x.pt", "cpu,export"), ("train --dataset synthetic", "cpu,export,train")],
)
def test_a_command_without_its_packages_names_all_extras_at_once(tmp_path, command, extras):
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pscr_engine.cli.group import cli; from pscr_engine.cli.run_command import run; sys.exit(run(cli))"
    )
    words = [sys.executable, "-c", program, *command.split()]
    outcome = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 1
    assert outcome.stderr == (
        f"error: this command needs torch: pip install -c constraints.txt 'pscr-engine[{extras}]'\n"
    )


def test_inspect_tells_what_is_in_a_bundle(cli, tmp_path):
    bundle = make_bundle(tmp_path / "model.pscr")
    text = cli("inspect").stdout
    for expected in (
        "all digests match",
        bundle.digest,
        "9 patches of 32×32",
        "5 from made up",
        "parity passed",
    ):
        assert expected in text
    facts = json.loads(cli("inspect", "--json", "model.pscr").stdout)
    assert facts["digest"] == bundle.digest
    assert facts["precisions"]["fp32"]["parity"]["passed"] is True


def test_doctor_tells_what_this_host_can_do(cli):
    text = cli("doctor").stdout
    assert "yes  score on the CPU" in text
    facts = json.loads(cli("doctor", "--json").stdout)
    assert facts["host"]["cpus"] >= 1
    assert facts["abilities"]["score on the CPU"][0] is True
    assert facts["versions"]["numpy"]
    assert re.search(r"clusters:\n  ray +([\d.]+|-)\n", text)
    assert re.search(r"(yes  score on a Ray cluster|no   score on a Ray .*: pip install 'pscr-engine\[ray\]')\n", text)


def test_doctor_sees_two_runtimes_that_clash(monkeypatch):
    from pscr_engine.cli import doctor

    monkeypatch.setattr(doctor, "installed_version", lambda name: "1.0")
    able, advice = doctor.examine()["abilities"]["score on the CPU"]
    assert not able
    assert "uninstall both" in advice
