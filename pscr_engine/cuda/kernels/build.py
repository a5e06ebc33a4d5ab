"""Compile the kernels: `python -m pscr_engine.cuda.kernels.build`, with `--check` to see whether it is needed.

Needs nvcc of CUDA 13 (`nvcc --version`). The results, `*.fatbin`, are part of the package: users need no
compiler. `*.fatbin.json` hold the digest of the source that each was made from; --check compares
digests, without a compiler, and fails if a source has changed since.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cu")))
# Turing to Blackwell as machine code, and PTX that later ones compile at first use.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


def build(source: Path) -> None:
    """Compile a source with nvcc, and record its digest, the architectures and the compiler.

    Raises:
        SystemExit: nvcc is missing or refuses the source.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise SystemExit("error: nvcc is not installed: install the CUDA toolkit, release 13")
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
    targets.append(f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}")
    out = source.with_suffix(".fatbin")
    command = [nvcc, "--fatbin", "-O3", "--Werror", "all-warnings", *targets, "-o", str(out), str(source)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"error: nvcc can't compile {source}")
    compiler = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = next(line for line in compiler.splitlines() if "release" in line).strip()
    record = {"source_sha256": _digest(source), "architectures": list(ARCHITECTURES), "compiler": release}
    source.with_suffix(".fatbin.json").write_text(json.dumps(record, indent=2) + "\n")


def _digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()


def is_fresh(source: Path) -> bool:
    """Tell whether the fatbin was made from the source as it is now."""
    record = source.with_suffix(".fatbin.json")
    return record.exists() and bool(json.loads(record.read_text())["source_sha256"] == _digest(source))


def main(arguments: list[str]) -> None:
    """Compile the sources that have changed; with "--check", fail if there are any."""
    stale = [source for source in SOURCES if not is_fresh(source)]
    if "--check" in arguments and stale:
        names = ", ".join(source.name for source in stale)
        raise SystemExit(f"error: {names} changed: run python -m pscr_engine.cuda.kernels.build and commit")
    for source in stale:
        build(source)


if __name__ == "__main__":
    main(sys.argv[1:])
