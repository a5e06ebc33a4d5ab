"""The commands of README, guides and cookbook, and the programs for services, do what they say: each is run."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import REFERENCE
from .helpers.images import encoded, pixels
from .helpers.object_store import s3_server
from .helpers.tiny import make_bundle

ROOT = Path(__file__).parents[1]
# Pages whose commands are run one after another, in one folder: each goes on with what those before it have made, and a
# command that stands on two pages is run once.
GUIDES = (
    "index",
    "getting-started",
    "training",
    "exporting",
    "scoring",
    "output",
    "results",
    "clusters",
    "speed",
    "gpus",
    "python",
)
RUNS = {
    "guides": [ROOT / "README.md", *(ROOT / f"docs/{name}.md" for name in GUIDES)],
    "cookbook": [ROOT / "docs/cookbook.md"],
}
PAGES = [page for pages in RUNS.values() for page in pages]
MADE = {"scores", "model.pscr", "kept.parquet", "report.html", "trained"}
# What runs or checks the blocks of the other pages.
ELSEWHERE = {
    "deploy.md": "tests/deploy/test_deploy.py",
    "recipes.md": "tests/examples/test_recipes.py",
    "services.md": "below",
}
NO_GPU = "needs a GPU"
# Heading, or beginning of a command → why it can't run in a test.
NOT_HERE = {
    "Install": "installs; CI does, with make",
    "On GPUs": NO_GPU,
    "A host with NVIDIA GPUs": NO_GPU,
    "make ": "CI runs these",
    "sbatch ": "needs Slurm",
    "export AWS_": "stands for the user's own",
}
# Beginning of a command → what a test adds, so that it takes seconds, downloads nothing and finds a cluster.
ADDED = {
    "pscr-engine train ": "--weights none --epochs 1 --patch-size 48 --batch-size 4",
    "pscr-engine export ": "--overwrite --accept-parity int8",
    "pscr-engine bench --bundle": "--seconds 0.05 --rounds 1",
    "pscr-engine bench --images": "--bundle other.pscr --seconds 0.05 --rounds 1",
    "pscr-engine score --manifest s3://data/images.parquet --out s3://data/scores-by-ray": "--ray-address local",
    "pscr-engine score --manifest images.parquet --out scores-by-ray": "--ray-address local",
}
PRELUDE = "def images_from_a_queue():\n    yield 'cat.png'\n"


def blocks(page):
    """Yield section, language and text of each block of a page."""
    section = ""
    for match in re.finditer(
        r"^##? ([^\n]*)$|^```(\w+)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        if match[1]:
            section = match[1]
        else:
            yield section, match[2], match[3]


def commands(page):
    """Yield the words of each command, or the text of each program, that can be run here."""
    for section, language, text in blocks(page):
        if section in NOT_HERE:
            continue
        if language == "python":
            yield [sys.executable, "-c", PRELUDE + text]
        if language != "sh":
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if not line.strip() or line.startswith(("#", *NOT_HERE)):
                continue
            words = shlex.split(line, comments=True)
            for beginning, options in ADDED.items():
                words += shlex.split(options) if line.startswith(beginning) else []
            assert words[0] == "pscr-engine", f"{page.name}: neither run nor excused: {line}"
            yield [sys.executable, "-m", "pscr_engine", *words[1:]]


def unique(found):
    """Yield each command where it comes first."""
    return (list(words) for words in dict.fromkeys(map(tuple, found)))


def write_images(folder, count):
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index:03d}.jpg").write_bytes(encoded(pixels(256, 256, index), "JPEG"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder with all that the pages take for granted."""
    folder = tmp_path_factory.mktemp("documents")
    write_images(folder / "photos", 12)
    write_images(folder / "labelled", 24)
    for name in ("cat.png", "dog.jpg", "a.png", "b.jpg"):
        (folder / name).write_bytes(encoded(pixels(240, 260, len(name)), "JPEG" if "jpg" in name else "PNG"))
    names = [f"{index:03d}.jpg" for index in range(24)]
    lines = [f"labelled/{name},{1 + index % 5},prompt {index // 2}" for index, name in enumerate(names)]
    (folder / "labelled.csv").write_text("path,mos,prompt\n" + "\n".join(lines) + "\n")
    (folder / "exemplars.csv").write_text("path,mos\n" + "".join(line.rpartition(",")[0] + "\n" for line in lines[:5]))
    manifest = {"path": [f"photos/{name}" for name in names[:12]], "model": ["x", "y"] * 6, "prompt": ["a cat"] * 12}
    pq.write_table(pa.table(manifest), folder / "images.parquet")
    make_bundle(folder / "other.pscr")
    checkpoint = [sys.executable, str(REFERENCE / "make_reference_ckpt.py"), "resnet18", "--seed", "1", "--compact"]
    subprocess.run([*checkpoint, "--out", folder / "best_model.pt"], check=True, capture_output=True)
    score = "-m pscr_engine score --manifest images.parquet --bundle other.pscr --out scores-of-last-week"
    subprocess.run([sys.executable, *score.split()], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def stores(place):
    """Make buckets with the same files, and yield the environment in which they are found."""
    with s3_server() as endpoint:
        for name in ("data", "models", "my-bucket"):
            bucket = endpoint.bucket(name)
            for file in [place / "images.parquet", *(place / "photos").iterdir(), *(place / "other.pscr").iterdir()]:
                at = "model.pscr/" if file.parent.name == "other.pscr" else "photos/" if file.suffix == ".jpg" else ""
                bucket.put(at + file.name, file.read_bytes())
        yield endpoint.environment()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_commands_do_what_the_pages_say(place, stores, name, tmp_path, monkeypatch):
    folder = tmp_path / "place"
    shutil.copytree(place, folder)
    for variable, value in stores.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for command in unique(command for page in RUNS[name] for command in commands(page)):
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=360, check=False)
        assert process.returncode == 0, f"{shlex.join(command[1:])}\n{process.stdout}\n{process.stderr}"
    assert {file.name for file in folder.iterdir()} >= MADE


def test_every_page_with_commands_is_run():
    for page in sorted(ROOT.glob("docs/*.md")):
        if any(language in ("sh", "python", "bash", "shell") for _, language, _ in blocks(page)):
            assert page in PAGES or page.name in ELSEWHERE, page


@pytest.mark.slow
def test_programs_for_services_do_what_the_page_says(tmp_path):
    pytest.importorskip("torch")
    make_bundle(tmp_path / "model.pscr")
    (tmp_path / "cat.png").write_bytes(encoded(pixels(240, 260)))
    programs = [text for _, language, text in blocks(ROOT / "docs/services.md") if language == "python"]
    assert len(programs) == 3
    # One after another in one process: each goes on with what those above have made.
    command = [sys.executable, "-c", "\n".join(programs)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr


def test_every_excuse_and_every_addition_is_needed():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    lines = text.splitlines()
    for excuse in NOT_HERE:
        assert any(line.startswith((excuse, f"# {excuse}", f"## {excuse}")) for line in lines), excuse
    for beginning in ADDED:
        assert any(line.startswith(beginning) for line in lines), beginning
