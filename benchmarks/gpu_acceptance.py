"""Check and measure everything that needs a GPU, on any NVIDIA host, from a plain checkout.

python -m benchmarks.gpu_acceptance                    all sections that have no result for this commit
python -m benchmarks.gpu_acceptance decode whole       these, again
python -m benchmarks.gpu_acceptance --bundle resnet18=model.pscr    where bundles can't be exported

Each section runs in a process of its own, so that none brings down the others. Those that don't fit into
--minutes are left for the next call. The record, as JSON and as Markdown, is written after every section.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

from pscr_engine.errors import MissingDependencyError, PscrError, one_line

from .common import CACHE, RESULTS, machine
from .gpu.place import Place
from .gpu.report import markdown
from .gpu.result import Result, SkippedError

ONCE = ("host", "decode", "kernels", "ceilings")
PER_BACKBONE = (
    "goldens", "engines", "rtx", "whole", "workers", "settings", "canary", "authors", "several", "profiled",
)  # fmt: skip
_LEAST_SECONDS = 20.0


def main() -> int:
    """Run the sections; return 0 if all checks of those that were run hold, 1 otherwise."""
    arguments = _arguments()
    place = Place(
        arguments.folder,
        {name: Path(path) for name, path in (each.split("=", 1) for each in arguments.bundle)},
        arguments.seconds,
        arguments.device,
        arguments.only,
    )
    place.folder.mkdir(parents=True, exist_ok=True)
    if arguments.inside:
        _run(arguments.sections[0], place, arguments.inside)
        return 0
    card = _card(place)
    file = arguments.out or RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', card.lower()).strip('-')}.json"
    record = _record(file, card)
    deadline = monotonic() + 60 * arguments.minutes
    everything = [*ONCE, *(f"{name} {backbone}" for name in PER_BACKBONE for backbone in place.backbones)]
    wanted = [name for name in everything if name.split()[0] in arguments.sections]
    if not arguments.sections:
        wanted = [name for name in everything if not record["sections"].get(name, {}).get("finished")]
    for name in wanted:
        left = deadline - monotonic()
        if left < _LEAST_SECONDS:
            print(f"{name}: not begun, out of time; give the same command again")
            continue
        print(f"{name} ...", flush=True)
        section = _in_a_process(name, arguments, left)
        sections = {**record["sections"], name: section}
        record["sections"] = {each: sections[each] for each in everything if each in sections}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=2) + "\n")
        file.with_suffix(".md").write_text(markdown(record))
        _show(section)
    print(file)
    done = [record["sections"][name] for name in wanted if name in record["sections"]]
    return int(not all(holds for section in done for holds, _ in section["checks"].values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = (*ONCE, *PER_BACKBONE)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="of: " + ", ".join(known))
    parser.add_argument("--bundle", action="append", default=[], metavar="BACKBONE=FOLDER")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU")
    parser.add_argument(
        "--folder",
        type=Path,
        default=CACHE / "gpu",
        help="kept; images, reference checkpoints (BACKBONE.pt) and bundles (BACKBONE.pscr), unless they are there",
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="after which sections are stopped")
    parser.add_argument("--out", type=Path, help="the record; by default benchmarks/results/gpu-CARD.json")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each figure is measured")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.sections) - set(known)):
        parser.error(f"no section {', '.join(unknown)}: there are {', '.join(known)}")
    return arguments


def _run(name: str, place: Place, file: Path) -> None:
    result = Result()
    with result.kept_in(file):
        try:
            importlib.import_module(f".gpu.{name}", __package__).run(place, result)
        except (SkippedError, MissingDependencyError) as error:
            result.skipped[name] = str(error)


def _in_a_process(name: str, arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    section_name, _, backbone = name.partition(" ")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks.gpu_acceptance", section_name, "--inside", answer]
        command += ["--folder", arguments.folder, "--device", arguments.device, "--seconds", arguments.seconds]
        command += [word for bundle in arguments.bundle for word in ("--bundle", bundle)]
        command += ["--only", backbone] if backbone else []
        start = monotonic()
        process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            _, stderr = process.communicate(timeout=seconds)
            failure = f"exit code {process.returncode}: {one_line(stderr[-1500:], 1500)}"
        except subprocess.TimeoutExpired:
            failure = f"stopped after {seconds:.0f} s; give the same command again, with more --minutes"
            os.killpg(process.pid, signal.SIGKILL)  # with the runs that it has started
            process.communicate()
        section: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else asdict(Result())
        if not section["finished"]:
            section["checks"]["the section itself"] = (False, failure)
        section["seconds"] = round(monotonic() - start, 1)
        return section


def _card(place: Place) -> str:
    from pscr_engine.cuda.open import open_device

    try:
        return open_device(place.device).name
    except PscrError as error:
        raise SystemExit(f"error: {error}") from None


def _record(file: Path, card: str) -> dict[str, Any]:
    """Return the record of this commit so far, or a new one."""
    about = machine()
    record = {"card": card, "commit": about["commit"], "date": about["date"], "sections": {}}
    record |= {"version": about["versions"]["pscr-engine"], "machine": about, "method": __doc__}
    try:
        earlier = json.loads(file.read_text())
    except (OSError, ValueError):
        return record
    same = (earlier.get("card"), earlier.get("commit")) == (record["card"], record["commit"])
    return {**record, "sections": earlier["sections"]} if same else record


def _show(section: dict[str, Any]) -> None:
    for check, (holds, seen) in section["checks"].items():
        print(f"  {'ok  ' if holds else 'FAIL'}  {check}: {seen}")
    for what, why in section["skipped"].items():
        print(f"  skip  {what}: {why}")
    for what, value in section["figures"].items():
        print(f"        {what}: {json.dumps(value)[:400]}")


if __name__ == "__main__":
    sys.exit(main())
