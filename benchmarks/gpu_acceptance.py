"""Checks and measures everything that needs a GPU, on any NVIDIA host, from a plain checkout.

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
import re
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

SECTIONS = {
    "host": "host",
    "decode": "decode",
    "kernels": "kernels",
    "ceilings": "ceilings",
    "goldens": "goldens",
    "engines": "engines",
    "whole": "whole",
    "authors": "authors",
    "several": "several",
}
_LEAST_SECONDS = 20.0


def main() -> int:
    """0 if all checks of the sections that were run hold."""
    arguments = _arguments()
    place = Place(
        arguments.folder,
        {name: Path(path) for name, path in (each.split("=", 1) for each in arguments.bundle)},
        arguments.seconds,
        arguments.device,
    )
    place.folder.mkdir(parents=True, exist_ok=True)
    if arguments.inside:
        arguments.inside.write_text(json.dumps(asdict(_run(arguments.sections[0], place))))
        return 0
    card = _card(place)
    file = arguments.out or RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', card.lower()).strip('-')}.json"
    record = _record(file, card)
    deadline = monotonic() + 60 * arguments.minutes
    wanted = arguments.sections or [name for name in SECTIONS if name not in record["sections"]]
    for name in wanted:
        left = deadline - monotonic()
        if left < _LEAST_SECONDS:
            print(f"{name}: not begun, out of time; give the same command again")
            continue
        print(f"{name} ...", flush=True)
        section = _in_a_process(name, arguments, left)
        record["sections"][name] = section
        record["sections"] = {each: record["sections"][each] for each in SECTIONS if each in record["sections"]}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=2) + "\n")
        file.with_suffix(".md").write_text(markdown(record))
        _show(section)
    print(file)
    done = (record["sections"].get(name, {"checks": {}}) for name in wanted)
    return int(not all(holds for section in done for holds, _ in section["checks"].values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="of: " + ", ".join(SECTIONS))
    parser.add_argument("--bundle", action="append", default=[], metavar="BACKBONE=FOLDER")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU")
    parser.add_argument("--folder", type=Path, default=CACHE / "gpu", help="for bundles and images; kept")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no section is begun")
    parser.add_argument("--out", type=Path, help="the record; by default benchmarks/results/gpu-CARD.json")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each figure is measured")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.sections) - set(SECTIONS)):
        parser.error(f"no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    return arguments


def _run(name: str, place: Place) -> Result:
    module = importlib.import_module(f".gpu.{SECTIONS[name]}", __package__)
    try:
        result: Result = module.run(place)
    except (SkippedError, MissingDependencyError) as error:
        return Result(skipped={name: str(error)})
    return result


def _in_a_process(name: str, arguments: argparse.Namespace, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks.gpu_acceptance", name, "--inside", answer]
        command += ["--folder", arguments.folder, "--device", arguments.device, "--seconds", arguments.seconds]
        command += [word for bundle in arguments.bundle for word in ("--bundle", bundle)]
        start = monotonic()
        try:
            outcome = subprocess.run(
                list(map(str, command)), stderr=subprocess.PIPE, text=True, timeout=seconds, check=False
            )
            failure = f"exit code {outcome.returncode}: {one_line(outcome.stderr[-1500:], 1500)}"
        except subprocess.TimeoutExpired:
            failure = f"not done in {seconds:.0f} s"
        section: dict[str, Any]
        if answer.exists():
            section = json.loads(answer.read_text())
        else:
            section = asdict(Result(checks={"the section itself": (False, failure)}))
        section["seconds"] = round(monotonic() - start, 1)
        return section


def _card(place: Place) -> str:
    from pscr_engine.cuda.open import open_device

    try:
        return open_device(place.device).name
    except PscrError as error:
        raise SystemExit(f"error: {error}") from None


def _record(file: Path, card: str) -> dict[str, Any]:
    """The record of this commit so far, or a new one."""
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
