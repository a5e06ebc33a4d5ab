"""Run the linters that come with the development packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def tool(name):
    """Find a linter that came with the development packages; without it the test is skipped, or fails in CI."""
    found = Path(sys.executable).parent / name
    if not found.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {name}: pip install 'pscr-engine[dev]'")
    return found


def lint(*command, text=None):
    """Check that a linter has nothing to say; `text` is its input."""
    outcome = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
