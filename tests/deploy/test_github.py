"""Workflows, forms and CITATION.cff, as far as they can be checked without GitHub."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from .linters import lint, tool

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())
FORMS = sorted(file for file in (GITHUB / "ISSUE_TEMPLATE").iterdir() if file.name != "config.yml")
SCHEMAS = {
    ROOT / "CITATION.cff": "citation-file-format",
    GITHUB / "dependabot.yml": "dependabot",
    GITHUB / "ISSUE_TEMPLATE" / "config.yml": "github-issue-config",
    **dict.fromkeys(FORMS, "github-issue-forms"),
    **dict.fromkeys(WORKFLOWS, "github-workflows"),
}
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def read(*path):
    return yaml.safe_load(ROOT.joinpath(*path).read_text("utf-8"))


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def shell_lines(text):
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def steps():
    for file in WORKFLOWS:
        for name, job in read(file)["jobs"].items():
            for step in job.get("steps", []):
                yield f"{file.name}: {name}", step


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda file: file.name)
def test_it_has_the_form_that_is_asked_for(file):
    lint(tool("check-jsonschema"), "--builtin-schema", f"vendor.{SCHEMAS[file]}", file)


def test_no_file_for_github_is_left_out():
    assert set(GITHUB.rglob("*.y*ml")) == {file for file in SCHEMAS if GITHUB in file.parents}


def test_workflows_are_safe():
    """Check, without a network, that nothing can be injected, no credential is kept and no action is unpinned."""
    lint(tool("zizmor"), "--offline", "--no-progress", "--no-config", GITHUB)


def test_actionlint_has_nothing_to_say():
    """Run actionlint if the host has it: its Python package downloads the program when it is installed."""
    found = shutil.which("actionlint")
    if found is None:
        pytest.skip("no actionlint on the PATH")
    lint(found, *WORKFLOWS)


def test_shell_in_workflows_is_clean():
    scripts = [step["run"] for _, step in steps() if "run" in step]
    assert len(scripts) >= 6
    for script in scripts:
        lint(tool("shellcheck"), "--shell=bash", "-", text=re.sub(r"\$\{\{.*?\}\}", "expression", script))
    lint(tool("shellcheck"), ROOT / ".ci" / "run")


def test_every_action_is_named_by_its_commit():
    used = [(where, step["uses"]) for where, step in steps() if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", name[1])] == []


def test_every_job_has_a_limit_and_few_rights():
    for file in WORKFLOWS:
        workflow = read(file)
        assert workflow["permissions"] == {}
        assert "concurrency" in workflow
        for name, job in workflow["jobs"].items():
            writes = {right for right, level in job["permissions"].items() if level == "write"}
            assert writes == {"publish": {"id-token"}, "attach": {"contents"}}.get(name, set()), name
            assert "uses" in job or job["timeout-minutes"] <= 180


def test_ci_does_what_the_script_does():
    job = read(".github", "workflows", "ci.yml")["jobs"]["check"]
    ran = shell_lines("\n".join(step["run"] for step in job["steps"] if "run" in step))
    script = shell_lines((ROOT / ".ci" / "run").read_text())
    first = next(index for index, line in enumerate(script) if not re.match(r"set |cd |export CI=", line))
    assert ran == script[first:]
    assert job["env"] == {"CI": "true"}


def test_ci_runs_every_python_that_is_supported():
    strategy = read(".github", "workflows", "ci.yml")["jobs"]["check"]["strategy"]
    assert strategy == {"fail-fast": False, "matrix": {"python": PYTHONS}}
    assert project()["requires-python"] == f">={PYTHONS[0]}"
    named = {text.rpartition(" ")[2] for text in project()["classifiers"] if "Python :: 3." in text}
    assert named <= set(PYTHONS)


def test_a_release_is_published_only_after_ci_and_a_build():
    jobs = read(".github", "workflows", "release.yml")["jobs"]
    assert jobs["publish"]["needs"] == ["check", "build"]
    assert jobs["attach"]["needs"] == "publish"
    assert read(".github", "workflows", "release.yml")[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true


def test_hooks_are_those_of_make_check():
    hooks = [hook for repository in read(".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}  # nothing to download
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    checks = [line.strip().replace("$(BIN)", ".venv/bin").replace(" --check", "") for line in recipe.splitlines()]
    assert [hook["entry"] for hook in hooks][: len(checks) - 1] == checks[:-1]  # but for the tests
    for hook in hooks:
        for name in re.findall(r"tests/\S+\.py", hook["entry"]):
            assert (ROOT / name).is_file()


def test_the_citation_is_of_this_version():
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "version"} <= citation.keys()
    about = project()
    assert (citation["title"], citation["version"]) == (about["name"], about["version"])
    assert (citation["license"], citation["abstract"].split(", ")[0]) == (
        about["license"],
        "Scores the quality of AI-generated images",
    )
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"].removeprefix("arXiv:") in (ROOT / "README.md").read_text("utf-8")


def test_forms_ask_for_commands_that_there_are(cli):
    asked = set()
    for form in FORMS:
        asked |= set(re.findall(r"`pscr-engine (\w+)`", form.read_text("utf-8")))
    assert asked >= {"doctor", "inspect", "bench"}
    for name in asked:
        assert cli(name, "--help").returncode == 0


@pytest.mark.parametrize("page", ["SECURITY.md", "RELEASE.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md"])
def test_pages_name_files_that_there_are(page):
    text = (ROOT / page).read_text("utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\((?!https?:)([^)#]+)", text)]
    folders = r"tests|pscr_engine|export|training|benchmarks|docs|\.github|\.ci"
    names = links + re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.fixture
def release(tmp_path):
    """Make what a release is checked by; the function runs the check on a tag."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "release_notes.py", tmp_path / ".ci")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.3\ndate-released: '2026-12-01'\n")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changes\n\n## 1.2.3 (2026-12-01)\n\n- New.\n\n## 1.2.2 (2026-11-01)\n\n- Old.\n"
    )
    return tmp_path


def notes(root, *tag):
    return subprocess.run([sys.executable, root / ".ci" / "release_notes.py", *tag], capture_output=True, text=True)


def test_notes_of_a_release_are_its_part_of_the_changelog(release):
    outcome = notes(release, "v1.2.3")
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "- New.\n", "")


@pytest.mark.parametrize(
    ("file", "then", "now", "message"),
    [
        (
            "pyproject.toml",
            "1.2.3",
            "1.2.4",
            "the tag is v1.2.3, but pyproject.toml has version 1.2.4; its tag is v1.2.4",
        ),
        ("CITATION.cff", "version: 1.2.3", "version: 1.2.2", "CITATION.cff has version 1.2.2, not 1.2.3"),
        ("CITATION.cff", "date-released", "date", "CITATION.cff has date-released None, CHANGELOG.md 2026-12-01"),
        (
            "CHANGELOG.md",
            "(2026-12-01)",
            "(not yet released)",
            "CHANGELOG.md begins with '## 1.2.3 (not yet released)'; make that '## 1.2.3 (YYYY-MM-DD)'",
        ),
        (
            "CHANGELOG.md",
            "## 1.2.3 (2026-12-01)\n\n- New.\n\n",
            "",
            "CHANGELOG.md begins with '## 1.2.2 (2026-11-01)'; make that '## 1.2.3 (YYYY-MM-DD)'",
        ),
        ("CHANGELOG.md", "- New.", "", "CHANGELOG.md has nothing about 1.2.3"),
    ],
)
def test_a_tag_that_is_no_release_is_one_line(release, file, then, now, message):
    text = (release / file).read_text()
    assert then in text
    (release / file).write_text(text.replace(then, now, 1))
    outcome = notes(release, "v1.2.3")
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (1, "", f"error: {message}\n")


def test_this_checkouts_files_are_those_that_a_release_is_checked_by():
    """Check that whatever keeps today's checkout from being a release is what one does when releasing."""
    outcome = notes(ROOT, f"v{project()['version']}")
    assert outcome.returncode == 0 or "(YYYY-MM-DD)" in outcome.stderr, outcome.stderr
