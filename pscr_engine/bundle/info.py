"""What `bundle.json` says about a model: sizes, sampling, graphs and how exact they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..sampling import Sampling

FORMAT = "pscr-bundle"
FORMAT_VERSION = 1
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a graph's scores are from the PyTorch FP32 model's, on `images` images.

    Args:
        images: how many images were compared.
        max_abs_diff, mean_abs_diff: largest and mean |difference| of the scores, on the label scale.
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
        """Tell whether the differences are within tolerance."""
        rank_ok = self.min_srcc is None or self.srcc is None or self.srcc >= self.min_srcc
        return self.max_abs_diff <= self.tolerance and rank_ok

    def as_json(self) -> dict[str, Any]:
        """Return the object that `bundle.json` stores."""
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
        file: name of its ONNX file in the bundle.
        opset: ONNX opset.
        parity: how far its scores are from PyTorch's.
        quantisation: how an INT8 graph was made: the ways tried, and the one chosen.
    """

    file: str
    opset: int
    parity: Parity
    quantisation: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the object that `bundle.json` stores."""
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
        feature_size: C, the length of the features.
        patch_size: P, the side of a patch in pixels.
        sampling: how patches are taken; D is `sampling.patches`.
        mean, std: per-channel normalisation of pixels / 255, R G B. Done inside the graph.
        label_range: smallest and largest label; tolerances are shares of its width.
        exemplars: how many there are and which list they came from.
        graphs: precision → its graph.
        checkpoint: digest and training facts of the checkpoint.
        created_by: versions of the packages that made the bundle.
        patch_scores: what is known of scores by some of the patches, see `PatchScores.facts`; None if nothing is.
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
    patch_scores: Mapping[str, Any] | None = None

    def tensors(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return names, types and shapes of the scoring graph's inputs and outputs."""
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
        """Return the object that `bundle.json` stores."""
        known = {} if self.patch_scores is None else {"patch_scores": dict(self.patch_scores)}
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
            **known,
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
            patch_scores=dict(value["patch_scores"]) if "patch_scores" in value else None,
        )
        if not info.graphs:
            raise ValueError("no precisions")
        if not 1 <= info.feature_size <= 2**16:
            raise ValueError(f"feature_size {info.feature_size}")
        if value["tensors"] != info.tensors():
            raise ValueError("'tensors' disagrees with the sizes and the sampling")
        return info
