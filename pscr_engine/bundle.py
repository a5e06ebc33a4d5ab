"""Bundles: read, verify and write the folder that holds an exported PSCR model.

The format is written down in `docs/bundle.md`. Nothing here needs PyTorch or ONNX.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atomic import sha256_of
from .errors import BundleError, one_line
from .sampling import Sampling
from .stores.uri import Place, place

FORMAT = "pscr-bundle"
FORMAT_VERSION = 1
MANIFEST_NAME = "bundle.json"
EXEMPLAR_TENSORS = "exemplars.safetensors"
EXEMPLAR_TABLE = "exemplars.parquet"
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Exemplars:
    """The exemplar cache.

    Args:
        hidden: float32 [M, C], We·f(e) + b1 of each exemplar: its half of the head's first layer.
        labels: float32 [M], the exemplars' scores on the label scale.
        features: float32 [M, C], f(e); not used for scoring, kept so that the cache can be checked.
    """

    hidden: NDArray[np.float32]
    labels: NDArray[np.float32]
    features: NDArray[np.float32]

    @property
    def count(self) -> int:
        """M."""
        return int(self.labels.shape[0])

    def check(self, feature_size: int) -> None:
        """Raise ValueError unless shapes, types and values fit a model with C = `feature_size`."""
        M = self.labels.shape[0]
        for name, array, shape in (
            ("hidden", self.hidden, (M, feature_size)),
            ("labels", self.labels, (M,)),
            ("features", self.features, (M, feature_size)),
        ):
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")
        if M == 0:
            raise ValueError("there are no exemplars")


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a graph's scores are from the PyTorch FP32 model's, on `images` images.

    Args:
        images: how many images were compared.
        max_abs_diff, mean_abs_diff: of the scores, on the label scale.
        srcc: Spearman's rank correlation of the two score lists; None below three images.
        tolerance: largest allowed `max_abs_diff`, on the label scale.
        min_srcc: smallest allowed `srcc`; None if any is.
        accepted: whether the user asked for this precision although it fails.
    """

    images: int
    max_abs_diff: float
    mean_abs_diff: float
    srcc: float | None
    tolerance: float
    min_srcc: float | None
    accepted: bool = False

    @property
    def passed(self) -> bool:
        """Whether the difference is within tolerance."""
        rank_ok = self.min_srcc is None or self.srcc is None or self.srcc >= self.min_srcc
        return self.max_abs_diff <= self.tolerance and rank_ok

    def as_json(self) -> dict[str, Any]:
        """As stored in `bundle.json`."""
        return {
            "images": self.images,
            "max_abs_diff": self.max_abs_diff,
            "mean_abs_diff": self.mean_abs_diff,
            "srcc": self.srcc,
            "tolerance": self.tolerance,
            "min_srcc": self.min_srcc,
            "passed": self.passed,
            "accepted": self.accepted,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Parity:
        """Read what `as_json` wrote."""
        return cls(**{name: value[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Graph:
    """One precision's scoring graph.

    Args:
        file: its name in the bundle.
        opset: ONNX opset.
        parity: how far its scores are from PyTorch's.
        quantisation: how an INT8 graph was made: the ways tried, and the one chosen.
    """

    file: str
    opset: int
    parity: Parity
    quantisation: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """As stored in `bundle.json`."""
        value = {"file": self.file, "opset": self.opset, "parity": self.parity.as_json()}
        return value if self.quantisation is None else {**value, "quantisation": dict(self.quantisation)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Graph:
        """Read what `as_json` wrote."""
        how = value.get("quantisation")
        parity = Parity.from_json(value["parity"])
        return cls(str(value["file"]), int(value["opset"]), parity, None if how is None else dict(how))


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """The content of `bundle.json`, except the digests of the other files.

    Args:
        backbone: name of the trunk, "resnet18" for example.
        feature_size: C.
        patch_size: P.
        sampling: how patches are taken; D is `sampling.patches`.
        mean, std: per-channel normalisation of pixels / 255, R G B. Done inside the graph.
        label_range: smallest and largest label; tolerances are shares of its width.
        exemplars: how many there are and which list they came from.
        graphs: precision → its graph.
        checkpoint: digest and training facts of the checkpoint.
        created_by: versions of the packages that made the bundle.
    """

    backbone: str
    feature_size: int
    patch_size: int
    sampling: Sampling
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    label_range: tuple[float, float]
    exemplars: Mapping[str, Any]
    graphs: Mapping[str, Graph]
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    created_by: Mapping[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Names, types and shapes of the scoring graph's inputs and outputs."""
        C, P, D = self.feature_size, self.patch_size, self.sampling.patches

        def tensor(dtype: str, *shape: int | str) -> dict[str, Any]:
            return {"dtype": dtype, "shape": list(shape)}

        return {
            "inputs": {
                "patches": tensor("uint8", f"B*{D}", P, P, 3),
                "exemplar_hidden": tensor("float32", "M", C),
                "exemplar_labels": tensor("float32", "M"),
            },
            "outputs": {
                "score": tensor("float32", "B"),
                "exemplar_scores": tensor("float32", "B", "M"),
                "features": tensor("float32", "B", C),
            },
        }

    def as_json(self) -> dict[str, Any]:
        """As stored in `bundle.json`."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "backbone": self.backbone,
            "feature_size": self.feature_size,
            "patch_size": self.patch_size,
            "sampling": self.sampling.as_json(),
            "normalisation": {"mean": list(self.mean), "std": list(self.std)},
            "label_range": list(self.label_range),
            "exemplars": dict(self.exemplars),
            "checkpoint": dict(self.checkpoint),
            "created_by": dict(self.created_by),
            "tensors": self.tensors(),
            "precisions": {name: graph.as_json() for name, graph in self.graphs.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BundleInfo:
        """Read what `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: something is missing or of the wrong kind.
        """
        patch_size = int(value["patch_size"])
        r_mean, g_mean, b_mean = map(float, value["normalisation"]["mean"])
        r_std, g_std, b_std = map(float, value["normalisation"]["std"])
        low, high = map(float, value["label_range"])
        info = cls(
            backbone=str(value["backbone"]),
            feature_size=int(value["feature_size"]),
            patch_size=patch_size,
            sampling=Sampling.from_json(value["sampling"], patch_size),
            mean=(r_mean, g_mean, b_mean),
            std=(r_std, g_std, b_std),
            label_range=(low, high),
            exemplars=dict(value["exemplars"]),
            graphs={str(name): Graph.from_json(graph) for name, graph in value["precisions"].items()},
            checkpoint=dict(value["checkpoint"]),
            created_by=dict(value["created_by"]),
        )
        if not info.graphs:
            raise ValueError("no precisions")
        if not 1 <= info.feature_size <= 2**16:
            raise ValueError(f"feature_size {info.feature_size}")
        if value["tensors"] != info.tensors():
            raise ValueError("'tensors' disagrees with the sizes and the sampling")
        return info


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened, verified bundle.

    Args:
        path: the bundle's folder.
        info: what `bundle.json` says.
        exemplars: the exemplar cache.
        digest: hexadecimal SHA-256 of `bundle.json`, which itself holds the digests of all other
            files: it names the bundle's content.
    """

    path: Path
    info: BundleInfo
    exemplars: Exemplars
    digest: str

    @classmethod
    def open(cls, path: str | Place) -> Bundle:
        """Read and verify a bundle: format version, and size and SHA-256 of every file it lists.

        One in an object store is fetched to the user's cache, unless it is there already.

        Raises:
            BundleError: there is no bundle, or it is damaged, or of another format version.
            StoreError: it can't be fetched.
        """
        where = place(path, "--bundle")
        if isinstance(where, Path):
            return cls._open(where)
        from .stores.bundles import cached_bundle

        try:
            return cls._open(cached_bundle(where))
        except BundleError:  # a damaged cache is no reason to stop; a damaged bundle stays so
            return cls._open(cached_bundle(where, afresh=True))

    @classmethod
    def _open(cls, path: Path) -> Bundle:
        raw = _read_bundle_json(path)
        value = _parse(path, raw)
        _verify_files(path, value.get("files"))
        try:
            info = BundleInfo.from_json(value)
            for name in [EXEMPLAR_TENSORS, *(graph.file for graph in info.graphs.values())]:
                if name not in value["files"]:
                    raise ValueError(f"{name} is used but not listed under 'files'")
            exemplars = _read_exemplars(path)
            exemplars.check(info.feature_size)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BundleError(f"{path}: malformed bundle ({what}); export it again") from error
        return cls(path, info, exemplars, hashlib.sha256(raw).hexdigest())

    def graph_path(self, precision: str) -> Path:
        """The ONNX file of `precision`.

        Raises:
            BundleError: the bundle has no graph of this precision.
        """
        if precision not in self.info.graphs:
            raise BundleError(
                f"{self.path}: no precision {precision}, only {', '.join(self.info.graphs)}; "
                f"export it with --precision {precision}"
            )
        return self.path / self.info.graphs[precision].file

    def exemplar_files(self) -> list[tuple[str, str]]:
        """Each exemplar's path, as the list named it, and its file's hexadecimal SHA-256, in the cache's order.

        Raises:
            BundleError: the table is damaged, or not the cache's.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(self.path / EXEMPLAR_TABLE, columns=["path", "sha256"])
        except (OSError, pa.ArrowException) as error:
            raise BundleError(
                f"{self.path}: {EXEMPLAR_TABLE}: {one_line(error, 200)}; export the bundle again"
            ) from error
        if table.num_rows != self.exemplars.count or set(table.column_names) != {"path", "sha256"}:
            raise BundleError(
                f"{self.path}: {EXEMPLAR_TABLE} does not list the {self.exemplars.count} exemplars with path and "
                "sha256; export the bundle again"
            )
        return list(zip(*(table.column(name).to_pylist() for name in ("path", "sha256")), strict=True))


def write_contents(folder: Path, info: BundleInfo, exemplars: Exemplars) -> None:
    """Write the exemplar tensors and, last, `bundle.json` with the digests of all files in `folder`.

    The graphs and the exemplar table must be there already. To make the whole bundle appear at
    once, use it inside `pscr_engine.atomic.atomic_directory`.
    """
    from safetensors.numpy import save

    exemplars.check(info.feature_size)
    # Not save_file(), which makes files that only their owner may read.
    (folder / EXEMPLAR_TENSORS).write_bytes(
        save({"hidden": exemplars.hidden, "labels": exemplars.labels, "features": exemplars.features})
    )
    value = info.as_json()
    value["files"] = {
        file.relative_to(folder).as_posix(): {"sha256": sha256_of(file), "bytes": file.stat().st_size}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST_NAME
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_bundle_json(path: Path) -> bytes:
    try:
        return (path / MANIFEST_NAME).read_bytes()
    except NotADirectoryError:
        raise BundleError(f"{path}: not a bundle, which is a folder; make one with pscr-engine export") from None
    except FileNotFoundError:
        what = "no bundle.json in it" if path.is_dir() else "no such bundle"
        raise BundleError(f"{path}: {what}; make a bundle with pscr-engine export, or name one with --bundle") from None
    except OSError as error:
        raise BundleError(f"{path}: can't read bundle.json ({error.strerror})") from error


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError(f"'format' is not {FORMAT!r}")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: bundle.json is not a PSCR bundle's ({error}); export it again") from error
    version = value.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: bundle format {version!r}, this version of pscr-engine reads {FORMAT_VERSION}; "
            "export it again, or install the pscr-engine that wrote it"
        )
    return value


def _verify_files(path: Path, files: object) -> None:
    if not isinstance(files, dict):
        raise BundleError(f"{path}: malformed bundle (no 'files'); export it again")
    for name, facts in files.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise BundleError(f"{path}: bundle.json names a file outside the bundle: {name}")
        try:
            same = (
                (path / name).is_file()  # no named pipe, which would be waited for
                and (path / name).stat().st_size == facts["bytes"]
                and sha256_of(path / name) == facts["sha256"]
            )
        except (OSError, LookupError, TypeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "bundle.json has no size and digest for it"
            raise BundleError(f"{path}: {name}: {reason}; copy the bundle again, or export it again") from error
        if not same:
            raise BundleError(
                f"{path}: {name} is not the file that was exported (size or SHA-256 differs); "
                "copy the bundle again, or export it again"
            )


def _read_exemplars(path: Path) -> Exemplars:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(str(path / EXEMPLAR_TENSORS))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{EXEMPLAR_TENSORS}: {error}") from error
    return Exemplars(tensors["hidden"], tensors["labels"], tensors["features"])
