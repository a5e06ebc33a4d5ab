"""Compile the kernel: `python -m pscr_engine.cuda.build_fatbin`, with `--check` to see whether it is needed.

Needs nvcc of CUDA 13 (`nvcc --version`). The result, `patches.fatbin`, is part of the package: users
need no compiler. `patches.fatbin.json` holds the digest of the source that it was made from; --check
compares, without a compiler, and fails if the source has changed since.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("patches.cu")
FATBIN = SOURCE.with_suffix(".fatbin")
RECORD = FATBIN.with_suffix(".fatbin.json")
# Turing to Blackwell as machine code, and PTX that later ones compile at first use.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


def build() -> None:
    """Compile with nvcc and write the record.

    Raises:
        SystemExit: nvcc is missing or refuses the source.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise SystemExit("error: nvcc is not installed: install the CUDA toolkit, release 13")
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
    targets.append(f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}")
    command = [nvcc, "--fatbin", "-O3", "--Werror", "all-warnings", *targets, "-o", str(FATBIN), str(SOURCE)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"error: nvcc can't compile {SOURCE}")
    compiler = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = next(line for line in compiler.splitlines() if "release" in line).strip()
    record = {"source_sha256": source_digest(), "architectures": list(ARCHITECTURES), "compiler": release}
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


def source_digest() -> str:
    """SHA-256 of the kernel's source."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def is_fresh() -> bool:
    """Whether the fatbin was made from the source as it is now."""
    return FATBIN.exists() and bool(json.loads(RECORD.read_text())["source_sha256"] == source_digest())


def main(arguments: list[str]) -> None:
    """Build, or check."""
    if "--check" not in arguments:
        build()
    elif not is_fresh():
        raise SystemExit("error: patches.cu has changed: run python -m pscr_engine.cuda.build_fatbin and commit")


if __name__ == "__main__":
    main(sys.argv[1:])
