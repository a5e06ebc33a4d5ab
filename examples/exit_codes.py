"""Run `pscr-engine score` as a step of a workflow: its exit code says whether to go on, try again, skip or fail.

    python examples/exit_codes.py --manifest images.parquet --out scores    # prints done, retry, skip or fail

The few lines that make it a task of Airflow or Prefect are in docs/recipes.md.
"""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum

# In an environment of its own, which is best beside an orchestrator: ["/opt/pscr/bin/pscr-engine"].
COMMAND = [sys.executable, "-m", "pscr_engine"]


class Outcome(StrEnum):
    """How a workflow goes on after a step."""

    DONE = "done"  # every row has its score, or its reason
    RETRY = "retry"  # the same command goes on where this one stopped
    SKIP = "skip"  # every row is there, but too few are good: not for the next step, and no retry changes it
    FAIL = "fail"  # somebody has to change something first


# 1 may be for good, too (a damaged bundle, say): give retries an end.
OUTCOMES = {0: Outcome.DONE, 1: Outcome.RETRY, 2: Outcome.FAIL, 3: Outcome.SKIP}


def outcome(code: int) -> Outcome:
    """Say how to go on after an exit code.

    Args:
        code: as subprocess gives it (negative for a signal) or as a shell does (128 and more for a signal, among them
            130, which is how pscr-engine says that it was interrupted). A process that was killed is tried again.
    """
    if code < 0 or code > 128:
        return Outcome.RETRY
    return OUTCOMES.get(code, Outcome.FAIL)


def score(*arguments: str) -> Outcome:
    """Run `pscr-engine score` with these arguments. Its messages go where this process's do: into the step's log."""
    try:
        code = subprocess.run([*COMMAND, "score", *arguments], check=False).returncode
    except (FileNotFoundError, PermissionError) as error:  # no retry makes it a command
        print(error, file=sys.stderr)
        return Outcome.FAIL
    return outcome(code)


if __name__ == "__main__":
    print(score(*sys.argv[1:]))
