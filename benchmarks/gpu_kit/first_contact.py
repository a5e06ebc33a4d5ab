"""First contact with a GPU host: unpack the kit, then run what matters most first, each step with its own time limit.

python3 first_contact.py [--work DIR] [--out DIR] [--minutes M] [STEP ...]

Parts of the kit may come one by one, in several calls: what they bring is kept in --work, and steps that need a part
that has not come yet are left for a later call. So are steps that don't fit into --minutes. What is known is written
to --out after every step: first-contact.json, and the records of the steps.

Needs nothing but Python's own library.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, NamedTuple


class Step(NamedTuple):
    """A command of the first contact, stopped after `seconds`; `needs` names the archives that it takes."""

    name: str
    seconds: int
    command: tuple[str, ...]
    needs: tuple[str, ...] = ("gpu", "project")


def acceptance(section: str, seconds: int, *needs: str, only: str = "resnet18") -> Step:
    """Make a step of a section of the acceptance run, for one backbone."""
    name = section if only == "resnet18" else f"{section} {only}"
    command = ("-m", "benchmarks.gpu_acceptance", section, "--only", only)
    return Step(name, seconds, command, ("gpu", "project", *needs))


_IMPORTS = (
    "import onnxruntime, nvidia.nvimgcodec, spdl.pipeline, mako, pytools, platformdirs, cuda.bindings;"
    "import pscr_engine, pscr_engine.cli, pscr_export.export, pscr_training.train, benchmarks.gpu_acceptance;"
    "print('onnxruntime', onnxruntime.__version__, onnxruntime.get_available_providers(), pscr_engine.__version__)"
)
_IMPORTS_RTX = "import tensorrt_rtx_bindings as trt; print('TensorRT for RTX', trt.__version__)"
STEPS = (
    Step("imports", 60, ("-c", _IMPORTS)),
    Step("imports TensorRT for RTX", 60, ("-c", _IMPORTS_RTX), ("tensorrt-rtx",)),
    acceptance("host", 60),
    acceptance("kernels", 60),
    acceptance("decode", 90),
    acceptance("goldens", 120),
    acceptance("canary", 60),
    acceptance("workers", 400),
    acceptance("rtx", 120, "tensorrt-rtx"),
    acceptance("settings", 150),
    acceptance("engines", 300),
    acceptance("profiled", 60),
    acceptance("whole", 240),
    acceptance("ceilings", 60),
    acceptance("goldens", 120, only="resnet50"),
    acceptance("workers", 400, only="resnet50"),
    acceptance("rtx", 150, "tensorrt-rtx", only="resnet50"),
    acceptance("whole", 240, only="resnet50"),
    Step("build PyCUDA", 240, ("-c", "import first_contact; first_contact.build_pycuda()"), ("gpu",)),
)


def main() -> int:
    """Unpack what has come and run the steps; return 0 if every step that was run came to its end, 1 otherwise."""
    arguments = _arguments()
    work, out = arguments.work, arguments.out
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    kit, there = receive(Path(__file__).resolve().parent, work)
    state_file = work / "first-contact.json"
    state: dict[str, Any] = json.loads(state_file.read_text()) if state_file.exists() else {}
    state |= {"commit": kit["commit"], "archives": sorted(there), "steps": state.get("steps", {})}
    failed = False
    for step in STEPS:
        done = state["steps"].get(step.name, {}).get("finished", False)
        if (arguments.steps and step.name not in arguments.steps) or (done and not arguments.steps):
            continue
        left = arguments.minutes * 60 - (time.monotonic() - begin)
        lacking = [name for name in step.needs if name not in there]
        if lacking:
            outcome: dict[str, Any] = {"finished": False, "why": f"lacks {', '.join(lacking)}: carry the other parts"}
        elif left < min(30, step.seconds):
            outcome = {"finished": False, "why": "out of time"}
        else:
            print(f"[{time.monotonic() - begin:.0f} s] {step.name}", flush=True)
            outcome = run(step, min(step.seconds * arguments.patience, left), work, arguments)
            failed = failed or not outcome["finished"]
            print(outcome["output"][-1500:], flush=True)
        state["steps"][step.name] = outcome
        state_file.write_text(json.dumps(state, indent=1) + "\n")
        for file in (state_file, work / "record.json", work / "record.md"):
            if file.exists():
                shutil.copy(file, out)
    print(f"[{time.monotonic() - begin:.0f} s] {out / 'first-contact.json'}")
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help="; ".join(step.name for step in STEPS))
    parser.add_argument("--work", type=Path, default=Path("/tmp/pscr"), help="kept from call to call")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "/tmp/out")), help="for the results")
    parser.add_argument("--patience", type=float, default=1, help="how many times its planned time a step may take")
    parser.add_argument("--minutes", type=float, default=9.5, help="after which no step is begun and the last stopped")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each figure is measured")
    parser.add_argument("--bundle", action="append", default=[], metavar="BACKBONE=FOLDER", help="in place of exports")
    arguments = parser.parse_args()
    if unknown := set(arguments.steps) - {step.name for step in STEPS}:
        parser.error(f"no step {', '.join(sorted(unknown))}")
    return arguments


def receive(part: Path, work: Path) -> tuple[dict[str, Any], set[str]]:
    """Keep the pieces that this part brings, and unpack each archive that is complete.

    Returns:
        The kit's list, and the names of the archives that are unpacked.
    """
    if not (part / "kit.json").exists():
        raise SystemExit(f"error: {part}: is no part of a kit (no kit.json); make gpu-kit makes one")
    kit: dict[str, Any] = json.loads((part / "kit.json").read_text())
    store = work / "pieces"
    store.mkdir(parents=True, exist_ok=True)
    there = set()
    for name, pieces in kit["archives"].items():
        mark = work / f".unpacked-{name}-{pieces[0]['sha256'][:12]}"
        for piece in pieces:
            for folder in (part, *part.parent.glob("part-*")):
                source = folder / piece["file"]
                if source.exists() and not mark.exists() and not (store / piece["file"]).exists():
                    shutil.copy(source, store / piece["file"])
        files = [store / piece["file"] for piece in pieces]
        if not mark.exists() and all(file.exists() for file in files):
            whole = store / f"{name}.tar.xz"
            with whole.open("wb") as target:
                for file, piece in zip(files, pieces, strict=True):
                    content = file.read_bytes()
                    if hashlib.sha256(content).hexdigest() != piece["sha256"]:
                        file.unlink()
                        raise SystemExit(f"error: {file.name} is damaged: carry part {piece['part']} again")
                    target.write(content)
            with tarfile.open(whole) as archive:
                archive.extractall(work, filter="data")
            for file in (whole, *files):
                file.unlink()
            mark.touch()
        if mark.exists():
            there.add(name)
    return kit, there


def environment(work: Path) -> dict[str, str]:
    """Return the steps' environment, with the kit's packages before the host's, and caches of its own."""
    folders = [str(work / "pycuda"), str(work / "tree"), str(work / "site"), str(Path(__file__).resolve().parent)]
    known = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*folders, *([known] if known else [])]),
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": str(work / "cache"),
        "PSCR_FIRST_CONTACT_WORK": str(work),
    }


def run(step: Step, seconds: float, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a step, and stop it with all that it has started when its time is over."""
    command = [sys.executable, *step.command]
    if "benchmarks.gpu_acceptance" in command:
        command += ["--folder", str(work / "place"), "--out", str(work / "record.json")]
        command += ["--seconds", str(arguments.seconds), "--minutes", f"{max(0.4, seconds / 60 - 0.1):.2f}"]
        if arguments.bundle:
            command[command.index("--only") : command.index("--only") + 2] = []
        command += [word for bundle in arguments.bundle for word in ("--bundle", bundle)]
    start = time.monotonic()
    folder = work / "tree" if (work / "tree").exists() else work
    log = work / "output.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=folder, env=environment(work), start_new_session=True
        )
        try:
            process.wait(seconds)
            why = f"exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            why = f"stopped after {seconds:.0f} s"
    return {
        "finished": process.returncode == 0,
        "why": why,
        "seconds": round(time.monotonic() - start, 1),
        "output": log.read_text(errors="replace")[-4000:],
    }


def build_pycuda() -> None:
    """Build PyCUDA from its source with the host's compiler, into the kit's packages; files are compiled at once."""
    work = Path(os.environ["PSCR_FIRST_CONTACT_WORK"])
    with tarfile.open(work / "pycuda.tar.gz") as archive:
        archive.extractall(work / "pycuda-source", filter="data")
    (source,) = (work / "pycuda-source").iterdir()
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    toolkit = Path(nvcc).resolve().parent.parent
    driver = next(
        (str(path.parent) for folder in ("/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64")
         for path in Path(folder).glob("libcuda.so.1")), None,
    )  # fmt: skip
    links = work / "links"
    links.mkdir(exist_ok=True)
    if driver is not None and not (links / "libcuda.so").exists():
        (links / "libcuda.so").symlink_to(f"{driver}/libcuda.so.1")
    (source / "siteconf.py").write_text(
        f"CUDA_ROOT = {str(toolkit)!r}\nCUDA_ENABLE_CURAND = False\nUSE_SHIPPED_BOOST = True\n"
        f"CUDADRV_LIB_DIR = [{str(links)!r}]\nCUDART_LIB_DIR = [{str(toolkit / 'lib64')!r}]\n"
    )
    flags = {"CFLAGS": "-O1 -g0 -w", "CXXFLAGS": "-O1 -g0 -w", "MAKEFLAGS": f"-j{os.cpu_count()}"}
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", work / "pycuda", source], check=True, env={**os.environ, **flags})
    check = "import pycuda.driver as cuda; cuda.init(); print('PyCUDA on', cuda.Device(0).name())"
    path = os.pathsep.join([str(work / "pycuda"), str(work / "site"), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", check], check=True, env={**os.environ, "PYTHONPATH": path})


if __name__ == "__main__":
    sys.exit(main())
