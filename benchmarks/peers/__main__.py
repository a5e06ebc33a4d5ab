"""Compare pscr-engine with what users would pick instead: the same images, in turn, each in a process of its own.

python -m benchmarks.peers [BACKBONE|shipped ...]  writes results/cpu-<processor>.json, and its tables in the pages

The peers' packages: pip install -c constraints.txt -r benchmarks/peers.txt, here or in an environment of their own that
is named with --python. A peer that can't run is left out, and the record says why.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pscr_engine.bundle import Bundle
from pscr_engine.errors import one_line
from pscr_engine.host import processor_model, usable_cpus
from pscr_engine.models import DEFAULT_MODEL, find_model

from ..common import ROOT, jpeg_files, record, spread, untrained_bundle, untrained_checkpoint
from .table import write_tables

METHOD = (
    "From JPEG files (512×512, in the page cache) to a Parquet file of scores: 'images' says which. OPS, nine patches "
    "of 224 pixels. resnet18, resnet50: ten exemplars; random weights, the same for all. 'shipped': the model that "
    "comes with pscr-engine, for peers that read its graph. Each peer is a process; in each "
    "round all run in turn, each for about as long. Images per second from when the network is loaded, compiled and "
    "warm, to the written file; for Ray, the time of a run of a few images is taken off. Ratios are of pairs within a "
    "round. Scores of peers with the same arithmetic are compared with pscr-engine's in FP32. pyiqa: another metric, "
    "of 25 crops per image."
)


SHIPPED = "shipped"
"""In place of a backbone's name: the model that comes with pscr-engine."""
_NEED_CHECKPOINT = ("eager", "tuned", "ray_data")


@dataclass(frozen=True)
class Peer:
    """A program that scores rows, and its figures.

    Args:
        name: its name in the record.
        about: what it is, in a few words.
        module: its module in this package; empty for pscr-engine itself.
        options: for the module, or for `pscr-engine score`.
        rows: of the first run, which warms up and gives the rate.
        fixed: whether all runs have as many rows as the first.
        same: whether its scores must equal pscr-engine's in FP32.
    """

    name: str
    about: str
    module: str
    options: tuple[str, ...]
    rows: int
    same: bool = False
    fixed: bool = False
    rates: list[float] = field(default_factory=list)


def peers() -> list[Peer]:
    return [
        *_ours_on("onnxruntime", "ONNX Runtime", ""),
        *_ours_on("openvino", "OpenVINO", ", openvino"),
        Peer("a: eager", "the reference's algorithm, PyTorch eager", "eager", (), 1, same=True),
        Peer("b: tuned", "PyTorch, cached exemplars, `torch.compile`, DataLoader", "tuned", (), 60, same=True),
        Peer("b: tuned, bf16", "the same in BF16", "tuned", ("bf16",), 60),
        Peer("c: openvino int8", "OpenVINO, NNCF INT8, asynchronous", "openvino_int8", ("int8",), 200),
        Peer("c: openvino bf16", "OpenVINO, BF16, asynchronous", "openvino_int8", ("bf16",), 60),
        Peer("c: openvino fp32", "OpenVINO, FP32, asynchronous", "openvino_int8", ("fp32",), 60, same=True),
        Peer("d: pyiqa", "pyiqa, HyperIQA (ResNet-50, 25 crops)", "pyiqa_metric", (), 2),
        Peer("e: ray data", "Ray Data `map_batches` over tuned PyTorch", "ray_data", (), 160, same=True, fixed=True),
    ]


def _ours_on(backend: str, title: str, suffix: str) -> list[Peer]:
    """Return pscr-engine's own runs with an engine, INT8 and FP32."""
    return [
        Peer(
            f"pscr-engine {precision}{suffix}",
            f"`pscr-engine score`, {precision.upper()}, {title}",
            "",
            ("--precision", precision, "--backend", backend),
            rows,
        )
        for precision, rows in (("int8", 200), ("fp32", 60))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=["resnet18", "resnet50", SHIPPED])
    parser.add_argument("--python", default=sys.executable, help="interpreter with the peers' packages")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="about how long each peer runs in a round")
    parser.add_argument("--only", nargs="+", help="measure only these peers")
    parser.add_argument("--host", default=_slug(processor_model()), help="name of the record: results/cpu-HOST.json")
    arguments = parser.parse_args()
    figures = {name: _compare(name, arguments) for name in arguments.backbones}
    files, real = jpeg_files()
    images = f"{len(files)} {'of AGIQA-3K' if real else 'made-up scenes, quality 92'}"
    path = record(f"cpu-{arguments.host}", METHOD, {"images": images, "backbones": figures})
    write_tables(path)
    print(path.read_text())


def _compare(backbone: str, arguments: argparse.Namespace) -> dict[str, Any]:
    if backbone == SHIPPED:
        bundle, checkpoint = find_model(DEFAULT_MODEL).open(), None
    else:
        bundle, checkpoint = untrained_bundle(backbone, ("fp32", "int8")), untrained_checkpoint(backbone)
    running: list[tuple[Peer, Callable[[int], float]]] = []
    left_out, versions, rows = {}, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for peer in peers():
            if arguments.only is not None and peer.name not in arguments.only:
                continue
            if checkpoint is None and peer.module in _NEED_CHECKPOINT:
                left_out[peer.name] = "needs a checkpoint, and none is shipped"
                continue
            answers: dict[str, Any] = {}
            run: Callable[[int], float]
            if peer.module:
                run = partial(_peer, peer, bundle, checkpoint, folder, arguments.python, answers)
            else:
                run = partial(_ours, peer, bundle, folder)
            print(f"{backbone}, {peer.name}: first run", flush=True)
            try:
                rate = run(peer.rows)
            except subprocess.CalledProcessError as error:
                said = (error.stderr or "").strip().splitlines()
                left_out[peer.name] = one_line(said[-1] if said else error, 300)
                print(f"left out: {left_out[peer.name]}", flush=True)
                continue
            versions.update(answers.get("versions", {}))
            rows[peer.name] = peer.rows if peer.fixed else max(1, math.ceil(rate * arguments.seconds))
            running.append((peer, run))
        for number in range(arguments.rounds):
            for peer, run in running:
                peer.rates.append(run(rows[peer.name]))
                print(f"{backbone}, round {number + 1}, {peer.name}: {peer.rates[-1]:.4g} images/s", flush=True)
        agreement = _agreement(folder, [peer for peer, _ in running])
    rates = {peer.name: peer.rates for peer, _ in running}
    ours = [peer.name for peer, _ in running if not peer.module]
    return {
        "peers": {
            peer.name: {
                "about": peer.about,
                "rows": rows[peer.name],
                "images_per_second": spread(peer.rates),
                **{
                    f"{each} is times as fast": spread([a / b for a, b in zip(rates[each], peer.rates, strict=True)])
                    for each in ours
                    if each != peer.name
                },
                **agreement.get(peer.name, {}),
            }
            for peer, _ in running
        },
        "left_out": left_out,
        "versions": versions,
    }


def _peer(
    peer: Peer, bundle: Bundle, checkpoint: Path | None, folder: Path, python: str, answers: dict[str, Any], rows: int
) -> float:
    out = folder / f"{_slug(peer.name)}.parquet"
    module, images = f"benchmarks.peers.{peer.module}", jpeg_files()[0][0].parent
    command = [python, "-m", module, bundle.path, checkpoint or "-", images, rows, out]
    roots = (ROOT, ROOT / "export", ROOT / "training")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [*map(str, command), *peer.options], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    answers.update(answer)
    return float(rows / answer["seconds"])


def _ours(peer: Peer, bundle: Bundle, folder: Path, rows: int) -> float:
    manifest, out = folder / "manifest.parquet", folder / _slug(peer.name)
    pq.write_table(pa.table({"path": [*islice(cycle(map(str, jpeg_files()[0])), rows)]}), manifest)
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pscr_engine", "score", "--manifest", manifest, "--bundle", bundle.path]
    command += ["--out", out, "--devices", "cpu", *peer.options]
    subprocess.run([*map(str, command)], cwd=ROOT, check=True, capture_output=True, text=True)
    success = json.loads((out / "_SUCCESS").read_text())
    assert success["status"] == {"ok": rows}
    return float(success["images_per_second"])


def _agreement(folder: Path, run: list[Peer]) -> dict[str, dict[str, float]]:
    """Compare scores with pscr-engine's in FP32: the largest difference of each peer with the same arithmetic."""

    def scores(peer: str, pattern: str = "{}.parquet") -> Any:
        return pq.read_table(folder / pattern.format(_slug(peer)), columns=["row", "score"]).sort_by("row")["score"]

    try:
        parts = sorted((folder / _slug("pscr-engine fp32")).glob("part-*.parquet"))
        wanted = pa.concat_tables(pq.read_table(part, columns=["score"]) for part in parts)["score"].to_numpy()
    except OSError:
        return {}
    out = {}
    for peer in run:
        if peer.module and peer.same:
            got = scores(peer.name).to_numpy()
            common = min(len(got), len(wanted))
            difference = float(abs(got[:common] - wanted[:common]).max())
            assert difference < 1e-2, f"{peer.name} computes something else: {difference}"
            out[peer.name] = {"largest_difference_of_scores": float(f"{difference:.2g}")}
    return out


def _slug(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return f"{name}-{usable_cpus()}-cores" if text == processor_model() else name


if __name__ == "__main__":
    main()
