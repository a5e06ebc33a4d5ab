"""What is in deploy/ and docs/deploy.md, as far as it can be checked without the machines that it is for."""

import functools
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pscr_engine.cli.score import score

from .linters import lint, tool

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))


def instructions(dockerfile):
    """Return a Dockerfile as [("FROM", "python:… AS wheel"), …], with continued lines joined."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def allowed():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    return {line[1:] for line in lines if line.startswith("!")}


@functools.cache
def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def pins(file):
    lines = [line.partition("==") for line in file.read_text().splitlines() if "==" in line]
    return {re.sub(r"[-_.]+", "-", name.lower()): version for name, _, version in lines}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(dockerfile):
    lint(tool("hadolint"), dockerfile)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_locked_and_not_roots(dockerfile):
    steps = instructions(dockerfile)
    final = steps[max(index for index, (word, _) in enumerate(steps) if word == "FROM") :]
    assert [value for word, value in final if word == "USER"] == ["10001:10001"]
    assert not [value for word, value in final if word == "RUN" and "pip" in value.split()]
    for word, value in steps:
        if word == "FROM":
            assert re.fullmatch(r"python:3\.11-slim-bookworm( AS \w+)?", value)
        elif word == "RUN" and "pip" in value:
            assert value.count("--constraint") >= 1
        elif word == "COPY" and not value.startswith("--from"):
            for source in value.split()[:-1]:
                assert (ROOT / source).exists()
                assert source in allowed()


def test_a_name_is_locked_once():
    """Check that no package has two pins: pip would refuse them when an image is built."""
    common, images = pins(ROOT / "constraints.txt"), pins(DEPLOY / "constraints.txt")
    assert {
        name: (images[name], common[name]) for name in images.keys() & common.keys() if images[name] != common[name]
    } == {}
    assert "onnxruntime-gpu" in images
    ray = {**common, **images}["ray"]
    assert documents("kuberay.yaml")[0]["spec"]["rayClusterSpec"]["rayVersion"] == ray


def all_needed(requirement, extra, seen):
    """Add to `seen` the name and extra of all that a requirement needs on this Python, as far as it is installed."""
    if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
        return
    name = canonicalize_name(requirement.name)
    for wanted in {"", *requirement.extras} - {extra for named, extra in seen if named == name}:
        seen.add((name, wanted))
        with suppress(metadata.PackageNotFoundError):
            for need in metadata.requires(name) or []:
                all_needed(Requirement(need), wanted, seen)


def test_all_that_make_check_installs_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["cpu"], *extras["export"], *extras["train"]]
    for text in extras["dev"]:
        own = re.fullmatch(r"pscr-engine\[(.*)\]", text)
        for name in own[1].split(",") if own else []:
            texts += extras[name]
        texts += [] if own else [text]
    seen = set()
    for text in texts:
        all_needed(Requirement(text), "", seen)
    names = {name for name, _ in seen}
    assert len(names) > 100
    assert names - pins(ROOT / "constraints.txt").keys() == set()


@pytest.mark.slow
def test_the_wheel_from_what_docker_sees_is_the_wheel(tmp_path):
    context = tmp_path / "context"
    for name in allowed():
        source, target = ROOT / name, context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, target)
    names = []
    for folder in (ROOT, context):
        out = tmp_path / "wheels" / folder.name
        lint(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, folder)
        (wheel,) = out.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names.append(sorted(archive.namelist()))
    assert names[0] == names[1]
    assert {"pscr_engine/explain/templates/page.html.j2", "pscr_engine/explain/templates/page.css"} <= set(names[0])


def test_shell_is_clean():
    lint(tool("shellcheck"), DEPLOY / "slurm.sh")
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        lint(tool("shellcheck"), "--shell=sh", "-", text=block)


@pytest.fixture
def slurm(tmp_path):
    """Run the script as a task of an array; `srun` says what it was given."""
    stand_in = tmp_path / "srun"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)

    def run(task, first=0, count=4, **variables):
        environment = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_MIN": str(first),
            "SLURM_ARRAY_TASK_COUNT": str(count),
            **variables,
        }
        return subprocess.run(["bash", DEPLOY / "slurm.sh"], env=environment, capture_output=True, text=True)

    return run


GIVEN = {"MANIFEST": "a b.parquet", "BUNDLE": "m.pscr", "OUT": "scores"}


def test_slurm_gives_every_task_its_shard(slurm):
    for task in range(4):
        words = slurm(task, **GIVEN).stdout.splitlines()
        assert words[:4] == ["pscr-engine", "score", "--manifest", "a b.parquet"]
        assert words[words.index("--shard") + 1] == f"{task}/4"
    some = slurm(7, first=3, count=2, SHARDS="16", **GIVEN).stdout.splitlines()
    assert some[some.index("--shard") + 1] == "7/16"


def test_slurm_says_what_is_missing(slurm):
    refused = slurm(1, first=1, **GIVEN)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (
        refused.stderr
        == "error: shards are counted from 0: use --array=0-15, or name how many there are with SHARDS=16\n"
    )
    unnamed = slurm(0, **{**GIVEN, "OUT": ""})
    assert (unnamed.returncode, unnamed.stdout) == (1, "")
    assert "OUT: a folder or prefix for the scores" in unnamed.stderr


@pytest.mark.parametrize("name", ["kubernetes.yaml", "kubernetes-gpu.yaml"])
def test_kubernetes_knows_all_of_it(name):
    from kubernetes_validate import validate

    (job,) = documents(name)
    for version in ("1.29", "1.37"):
        validate(job, version, strict=True)
    spec, (container,) = job["spec"], job["spec"]["template"]["spec"]["containers"]
    shards = [argument for argument in container["args"] if argument.startswith("--shard=")]
    assert shards == [f"--shard=$(JOB_COMPLETION_INDEX)/{spec['completions']}"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] <= spec["completions"]
    named = {
        rule["onExitCodes"]["containerName"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    }
    assert named == {container["name"]}


def test_kubernetes_knows_the_pods_of_kuberay():
    from kubernetes_validate import validate

    (job,) = documents("kuberay.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
        validate(pod, "1.37", strict=True)
    assert len({group["template"]["spec"]["containers"][0]["image"] for group in groups}) == 1


def commands():
    """Yield every `pscr-engine score` of the files and of the page, as words."""
    for name in ("kubernetes.yaml", "kubernetes-gpu.yaml"):
        yield documents(name)[0]["spec"]["template"]["spec"]["containers"][0]["args"][1:]
    yield shlex.split(documents("kuberay.yaml")[0]["spec"]["entrypoint"])[2:]
    for file in (DEPLOY / "slurm.sh", ROOT / "docs" / "deploy.md"):
        text = file.read_text().replace("\\\n", " ")
        for line in re.findall(r"(?:pscr-engine|:cpu|:gpu) score +(--.*)", text):
            yield shlex.split(line)


def test_commands_have_options_that_there_are():
    given = list(commands())
    assert len(given) >= 7
    for words in given:
        words = [word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in words]
        words = [re.sub(r"^\$SLURM_ARRAY_TASK_ID/.*", "0/4", word) for word in words]
        with click.Context(score) as context:
            score.parse_args(context, words)
