"""What the benchmarks share: the machine's description, bundles with random weights, records."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from pscr_engine import __version__
from pscr_engine.atomic import atomic_directory
from pscr_engine.backends import Backend, create_backend
from pscr_engine.bundle import Bundle, BundleInfo, write_contents
from pscr_engine.cuda.engine import Shape
from pscr_engine.host import cpu_flags, installed_version, processor_model, usable_cpus
from pscr_engine.sampling import Sampling
from pscr_engine.stages.infer import PatchScorer

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_REAL_IMAGES = ROOT.parent / "shared" / "data" / "agiqa-3k" / "images"
CACHE = Path(tempfile.gettempdir()) / "pscr-engine-benchmarks"


class HostBackend(Backend, PatchScorer, Protocol):
    """A backend of processors, whose sessions can be called by themselves."""


def host_backend(bundle: Bundle, **options: Any) -> HostBackend:
    """Open a bundle on this host's processor; options as for `create_backend`."""
    return cast(HostBackend, create_backend(bundle, **options))


def machine() -> dict[str, Any]:
    """Describe this machine for a record: processor, cores, system, versions, commit and date."""
    return {
        "processor": processor_model(),
        "vnni": "avx512_vnni" in cpu_flags(),
        "usable_cores": usable_cpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions("pscr-engine", "onnxruntime", "onnxruntime-gpu", "numpy", "pillow"),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit() -> str:
    """Return the checkout's commit, abbreviated; "" where git is not installed, or this is no checkout."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def versions(*names: str) -> dict[str, str]:
    """Return the versions of pscr-engine, which may be a plain checkout, and of those packages that are installed."""
    installed = {name: version for name in names if (version := installed_version(name)) is not None}
    return {"pscr-engine": __version__, **installed}


def untrained_bundle(backbone: str, precisions: tuple[str, ...] = ("fp32",)) -> Bundle:
    """Return a bundle of `backbone` with random weights and ten exemplars, made once per version of the export."""
    path = CACHE / f"{'-'.join([backbone, *precisions[1:], _export_version()])}.pscr"
    if not path.exists():
        from pscr_export.export import ExportConfig, export_bundle

        accepted = frozenset(precisions) - {"fp32"}  # random weights say nothing about parity
        checkpoint, exemplars = untrained_checkpoint(backbone), exemplar_list()
        export_bundle(ExportConfig(checkpoint, exemplars, path, precisions=precisions, accept_parity=accepted))
    return Bundle.open(path)


@cache
def _export_version() -> str:
    """Return what changes with the sources of the export: bundles of earlier ones must not be measured again."""
    digest = hashlib.sha256()
    for file in sorted((ROOT / "export" / "pscr_export").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def untrained_checkpoint(backbone: str) -> Path:
    """Return the checkpoint of `untrained_bundle`, made once and kept."""
    from pscr_training.untrained import write_untrained_checkpoint

    CACHE.mkdir(exist_ok=True)
    path = CACHE / f"{backbone}.pt"
    if not path.exists():
        write_untrained_checkpoint(path, backbone)
    return path


def words(document: str | None, allowed: Iterable[str]) -> list[str]:
    """Return what a benchmark's command line asks for, or end the process with its document or what is wrong.

    Args:
        document: the module's, which says how it is called.
        allowed: the words that may be given.
    """
    allowed = list(allowed)
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    if allowed:
        parser.add_argument("words", nargs="*", metavar="WORD", help=f"what to measure, of {', '.join(allowed)}")
    else:
        parser.set_defaults(words=[])
    given: list[str] = parser.parse_args().words
    if unknown := [word for word in given if word not in allowed]:
        parser.error(f"{unknown[0]}: there are {', '.join(allowed)}")
    return given


def jpeg_files() -> tuple[list[Path], bool]:
    """Return JPEG files of 512×512 pixels, and whether they are real: AGIQA-3K's where present, else made-up ones."""
    if files := sorted(_REAL_IMAGES.glob("*.jpg")):
        return files, True
    return made_up_images(), False


def made_up_images() -> list[Path]:
    """Return 64 JPEG files of made-up scenes, 512×512 at quality 92, made once and kept."""
    folder = CACHE / "images"
    if not folder.exists():
        from pscr_engine.synthetic import generate

        folder.mkdir(parents=True)
        for index, made in enumerate(generate(64, seed=7)):
            made.image.save(folder / f"{index:03d}.jpg", quality=92)
    return sorted(folder.glob("*.jpg"))


def write_scoring_graph(checkpoint: Any, path: Path, precision: str = "fp32", exemplars: int | None = None) -> Shape:
    """Export a checkpoint's scoring graph with OPS, without a bundle around it, and return its shape.

    Args:
        checkpoint: a `pscr_export.checkpoint.Checkpoint`.
        path: the .onnx file to write.
        precision: the trunk's, "fp32" or "fp16".
        exemplars: M, the number of exemplars it is made for; None for any number.
    """
    from pscr_export.graph import export_graph
    from pscr_export.network import ScoringNetwork
    from pscr_export.precision import TRUNK_DTYPES, prepare_trunk

    backbone, trunk = checkpoint.backbone, prepare_trunk(checkpoint.trunk, precision)
    D = Sampling.create("ops", backbone.patch_size).patches
    network = ScoringNetwork(trunk, checkpoint, D, TRUNK_DTYPES[precision], exemplars=exemplars)
    export_graph(network, backbone.patch_size, path)
    return Shape(D, backbone.patch_size, backbone.feature_size, exemplars or 0)


def exemplar_list() -> Path:
    """Return the .csv file that lists the ten made-up exemplars, made once, with its images, and kept."""
    from pscr_engine.synthetic import write_images

    folder = CACHE / "exemplars"
    return folder / "exemplars.csv" if folder.exists() else write_images(folder, "exemplars.csv", 10, 1)


def exemplar_images() -> list[tuple[str, float]]:
    """Return file and label of each made-up exemplar, in the order of the untrained bundle's cache."""
    listed = exemplar_list()
    with listed.open(newline="") as file:
        return [(str(listed.parent / row["path"]), float(row["mos"])) for row in csv.DictReader(file)]


def answering_bundle(like: Bundle, patch_size: int = 224) -> Bundle:
    """Return a bundle whose graph reads one byte per patch: a run then costs everything but inference."""
    path = CACHE / f"answers-{patch_size}.pscr"
    if not path.exists():
        sampling = Sampling.create("ops", patch_size)
        graphs = {"fp32": replace(like.info.graphs["fp32"], file="scorer.fp32.onnx")}
        info = replace(like.info, patch_size=patch_size, sampling=sampling, graphs=graphs)
        import onnx

        with atomic_directory(path) as folder:
            onnx.save(_answering_graph(info), folder / "scorer.fp32.onnx")
            shutil.copy(like.path / "exemplars.parquet", folder)
            write_contents(folder, info, like.exemplars)
    return Bundle.open(path)


def _answering_graph(info: BundleInfo) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    P, D, C = info.patch_size, info.sampling.patches, info.feature_size
    constants = {
        "starts": np.zeros(4, np.int64),
        "ends": np.array([2**31, 1, 1, 1]),
        "by_image": np.array([-1, D]),
        "one": np.array([1]),
        "zeros": np.zeros((1, C), np.float32),
    }
    nodes = [
        helper.make_node("Slice", ["patches", "starts", "ends"], ["byte"]),
        helper.make_node("Cast", ["byte"], ["value"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["value", "by_image"], ["values"]),
        helper.make_node("ReduceMean", ["values"], ["score"], axes=[1], keepdims=0),
        helper.make_node("Unsqueeze", ["score", "one"], ["column"]),
        helper.make_node("Add", ["column", "exemplar_labels"], ["exemplar_scores"]),
        helper.make_node("Add", ["column", "zeros"], ["features"]),
    ]
    floats, kind = TensorProto.FLOAT, helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "answers",
        [
            kind("patches", TensorProto.UINT8, [None, P, P, 3]),
            kind("exemplar_hidden", floats, ["M", C]),
            kind("exemplar_labels", floats, ["M"]),
        ],
        [kind("score", floats, ["B"]), kind("exemplar_scores", floats, ["B", "M"]), kind("features", floats, ["B", C])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def random_patches(bundle: Bundle, images: int) -> np.ndarray:
    """Return patches of noise for `images` images, uint8 [images·D, P, P, 3]."""
    D, P = bundle.info.sampling.patches, bundle.info.patch_size
    return np.random.default_rng(0).integers(0, 256, (images * D, P, P, 3), dtype=np.uint8)


def spread(values: list[float]) -> dict[str, float]:
    """Return minimum, median and maximum, to four digits."""
    return {
        "min": float(f"{min(values):.4g}"),
        "median": float(f"{np.median(values):.4g}"),
        "max": float(f"{max(values):.4g}"),
    }


def record(name: str, method: str, figures: dict[str, Any]) -> Path:
    """Write `results/NAME.json` with method, machine and figures, and return the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"benchmark": name, "method": method, "machine": machine(), **figures}
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
