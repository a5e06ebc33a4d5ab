"""Docstrings that a stranger can read: a function's begins with a verb, and nothing begins with "Of" or "See".

Run it as a program for the list of what doesn't: `python -m tests.test_docstrings [FOLDER...]`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("pscr_engine", "export", "training", "benchmarks", "tests")
VERBS = frozenset(
    """
    Accept Accumulate Acquire Add Adjust Allocate Allow Analyse Answer Append Apply Ask Assign Attach Average
    Begin Bind Blank Block Bound Bring Build Calculate Calibrate Call Cast Change Check Choose Claim Classify
    Clear Close Collect Combine Commit Compare Compile Complete Compute Configure Connect Construct Continue
    Convert Copy Correct Correlate Count Create Cut Decide Declare Decode Delete Derive Describe Detach Detect
    Determine Discard Divide Do Download Draw Drive Drop Emit Enable Encode End Enqueue Ensure Enter Estimate
    Evaluate Exclude Execute Exit Expand Explain Export Extract Fail Fake Feed Fetch Fill Filter Find Finish Fit
    Flatten Flush Fold Follow Force Format Free Freeze Gather Generate Get Give Group Guard Guess Hand Handle
    Hash Have Hide Hold Identify Ignore Import Infer Initialise Inject Insert Inspect Install Interpolate Invert
    Iterate Join Judge Keep Kill Label Launch Lay Learn Leave Let Lift Limit List Listen Load Locate Lock Log
    Look Lower Make Map Mark Match Measure Merge Mix Move Name Narrow Normalise Note Number Observe Omit Open
    Order Pack Pad Parse Pass Patch Pause Pick Place Plan Play Plot Poll Predict Prefetch Prepare Pretend
    Prevent Print Probe Process Produce Profile Prove Provide Push Put Quantise Quote Raise Rank Reach Read
    Rebuild Receive Recognise Record Reduce Refuse Register Reject Release Remember Remove Rename Render Renew
    Repeat Replace Reply Report Require Reserve Reset Resize Resolve Restore Return Reuse Rewrite Round Run
    Sample Save Say Scale Scan Score Search Select Send Separate Serve Set Shorten Show Shuffle Shut Sign
    Simulate Skip Sort Split Spread Stand Start State Stay Stop Store Stream Submit Subtract Sum Summarise Swap
    Synchronise Take Tell Test Throw Time Train Transform Translate Treat Try Tune Turn Undo Unfold Unpack
    Update Upload Use Validate Verify View Visit Wait Walk Warn Watch Weigh Wrap Write Yield Zero
    """.split()  # noqa: SIM905
)
Fault = tuple[str, int, str, str]


def faults(path: Path) -> Iterator[Fault]:
    """Yield file, line, name and first line of each docstring that breaks the rules."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        text = ast.get_docstring(node)
        if text is None:
            continue
        first, function = text.splitlines()[0], isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        word = first.split()[0].rstrip(".,:;")
        if word in ("Of", "See") or not first.endswith((".", ":", "?", "::")) or (function and word not in VERBS):
            yield str(path), getattr(node, "lineno", 1), getattr(node, "name", "the module"), first


def all_faults(folders: tuple[str, ...] = FOLDERS) -> list[Fault]:
    """List what breaks the rules in all sources below some folders."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return [fault for file in files if "reference" not in file.parts for fault in faults(file)]


def test_every_docstring_is_a_sentence_that_stands_alone():
    assert not [f"{Path(path).relative_to(ROOT)}:{line}: {name}: {text}" for path, line, name, text in all_faults()]


def test_the_check_finds_what_it_is_for(tmp_path):
    source = tmp_path / "bad.py"
    source.write_text(
        '"""Of the plot."""\n\ndef f():\n    """See `g`."""\n\n'
        'def g():\n    """The mean."""\n\ndef h():\n    """Return it."""\n'
    )
    assert [(line, name) for _, line, name, _ in faults(source)] == [(1, "the module"), (3, "f"), (6, "g")]


if __name__ == "__main__":
    for path, line, name, text in all_faults(tuple(sys.argv[1:]) or FOLDERS):
        print(f"{path}:{line}: {name}: {text}")
