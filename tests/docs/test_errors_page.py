"""Messages that docs/errors.md quotes are what the program says: each command on the page is run."""

import os
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ..conftest import REFERENCE
from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
# The command line on a host without a GPU, and without the package that makes pages.
PROGRAM = """
import sys

sys.modules.update(dict.fromkeys(("jinja2", "pycuda", "cuda")))
from pscr_engine.cli.group import cli
from pscr_engine.cli.run_command import run

sys.exit(run(cli))
"""


def quoted():
    """Yield heading, command, message and exit code of each section."""
    for section in re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        command, message = re.search(r"```console\n\$ pscr-engine ([^\n]*)\n(.*?)\n```", section, re.DOTALL).groups()
        yield section.partition("\n")[0], command, message, int(re.search(r"[Ee]xit code (\d)", section)[1])


SECTIONS = list(quoted())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make the files that the page's commands name."""
    folder = tmp_path_factory.mktemp("errors")
    (folder / "photos").mkdir()
    for index in range(3):
        (folder / "photos" / f"{index:03d}.jpg").write_bytes(encoded(pixels(64, 64, index), "JPEG"))
    (folder / "images.csv").write_text("path\nphotos/000.jpg\nphotos/001.jpg\n")
    (folder / "files.csv").write_text("file,prompt\nphotos/000.jpg,a cat\n")
    (folder / "moved.csv").write_text("path\nold/000.jpg\nold/001.jpg\n")
    (folder / "labels.csv").write_text("path,rating\nphotos/000.jpg,4.5\n")
    for count, name in enumerate(("model", "other", "damaged"), 5):
        make_bundle(folder / f"{name}.pscr", exemplars=count)
    with (folder / "damaged.pscr" / "scorer.fp32.onnx").open("ab") as graph:
        graph.write(b"x")
    checkpoint = [sys.executable, str(REFERENCE / "make_reference_ckpt.py"), "resnet18", "--seed", "1", "--compact"]
    subprocess.run([*checkpoint, "--out", folder / "best_model.pt"], check=True, capture_output=True)
    assert run("score images.csv --bundle model.pscr --out scores", folder).returncode == 0
    return folder


def run(command, folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "XDG_CACHE_HOME": str(folder / "cache")}
    words = [sys.executable, "-c", PROGRAM, *shlex.split(command)]
    with metadata_service_without_roles() as environment["AWS_METADATA_ENDPOINT"]:
        return subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )


@contextmanager
def metadata_service_without_roles():
    """Serve what a host has whose cloud, if any, gives it no credentials, and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), NothingHere) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class NothingHere(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def do_PUT(self):
        self.do_GET()

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.mark.slow
@pytest.mark.parametrize(("heading", "command", "message", "code"), SECTIONS, ids=[each[0] for each in SECTIONS])
def test_the_program_says_what_the_page_quotes(place, heading, command, message, code):
    outcome = run(command, place)
    assert outcome.stderr.splitlines()[-1:] == [message]
    assert outcome.returncode == code


def test_the_pages_own_table_leads_from_what_a_message_has_to_every_section():
    messages = {heading.lower().replace(" ", "-"): message for heading, _, message, _ in SECTIONS}
    assert len(messages) >= 10
    led_to = set()
    for words, links in re.findall(r"^\| ([^|]+) \| (\[.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE):
        for anchor in re.findall(r"\]\(#([\w-]+)\)", links):
            led_to.add(anchor)
            assert [part for part in words.split("…") if part.strip() not in messages[anchor]] == []
    assert led_to == set(messages)
