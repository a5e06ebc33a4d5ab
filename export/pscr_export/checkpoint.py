"""Reads checkpoints of the PSCR authors' implementation, without executing anything in them.

A checkpoint is `torch.save` of `{'epoch', 'backbone', 'regressor', 'optimizer', 'rho_best'}`. It
is read by `safe_load`; beside tensors and plain values, only NumPy's numbers are accepted, as `rho_best` is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pscr_engine.atomic import sha256_of
from pscr_engine.errors import CheckpointError, option

from .backbones import BACKBONES, Backbone
from .record import KEY, TrainingRecord
from .safe_load import load_safely
from .timm_backbone import PREFIX, find_backbone
from .wrapped_keys import without_wrappers


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose tensors are complete, of the right shapes and finite.

    Args:
        path: the file.
        sha256: SHA-256 of the file.
        backbone: which trunk it holds.
        trunk: the trunk with the checkpoint's weights, in eval mode.
        fc1_weight, fc1_bias, fc2_weight, fc2_bias: the regressor: float32 [C, 2C], [C], [1, C], [1].
        epoch: epoch after which it was saved; None if it does not say.
        rho_best: best SRCC so far; None if it does not say.
        record: how it was trained; None if pscr-engine did not train it.
    """

    path: Path
    sha256: str
    backbone: Backbone
    trunk: nn.Module
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor
    epoch: int | None
    rho_best: float | None
    record: TrainingRecord | None = None


def read_checkpoint(path: str | Path, backbone: str = "auto") -> Checkpoint:
    """Read and check a checkpoint.

    Args:
        path: the file.
        backbone: name of its trunk, or "auto" to recognise it from the keys.

    Raises:
        CheckpointError: no file, no checkpoint, an object that is not allowed, an unknown backbone,
            missing or unexpected keys, wrong shapes, or weights that are not finite.
    """
    path = Path(path)
    content = load_content(path)
    record = record_of(path, content)
    if record is not None and record.method != "contrastive":
        raise CheckpointError(f"{path}: the {record.method} baseline compares with no exemplars; it can't be exported")
    parts = {name: _state_dict(path, content, name) for name in ("backbone", "regressor")}
    spec = _choose_backbone(path, parts["backbone"], backbone, record)
    trunk = spec.build().eval()
    _check(path, f"backbone ({spec.name})", parts["backbone"], trunk.state_dict(), spec)
    C = spec.feature_size
    regressor = {
        "fc1.weight": torch.empty(C, 2 * C),
        "fc1.bias": torch.empty(C),
        "fc2.weight": torch.empty(1, C),
        "fc2.bias": torch.empty(1),
    }
    _check(path, "regressor", parts["regressor"], regressor, spec)
    wanted = {key: tensor for key, tensor in parts["backbone"].items() if not spec.is_unused(key)}
    trunk.load_state_dict(wanted, strict=False)  # _check was stricter, except for num_batches_tracked
    epoch = _number(content.get("epoch"))
    fc = {key: tensor.float() for key, tensor in parts["regressor"].items()}
    return Checkpoint(
        path,
        sha256_of(path),
        spec,
        trunk.float(),
        fc["fc1.weight"],
        fc["fc1.bias"],
        fc["fc2.weight"],
        fc["fc2.bias"],
        epoch=None if epoch is None else int(epoch),
        rho_best=_number(content.get("rho_best")),
        record=record,
    )


def record_of(path: Path, content: Mapping[str, Any]) -> TrainingRecord | None:
    """Return what a checkpoint says about its training, or None if pscr-engine did not train it.

    Raises:
        CheckpointError: the record can't be understood.
    """
    if KEY not in content:
        return None
    try:
        return TrainingRecord.from_dict(content[KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its training record can't be read ({error}); another version wrote it"
        ) from error


def load_content(path: Path) -> Mapping[str, Any]:
    """Load everything in a checkpoint, without executing anything in it.

    Raises:
        CheckpointError: no file, no checkpoint, or an object in it that is not allowed.
    """
    content = load_safely(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: not a PSCR checkpoint: it holds a {type(content).__name__}, not a dictionary")
    missing = [name for name in ("backbone", "regressor") if name not in content]
    if missing:
        keys = ", ".join(str(key) for key in list(content)[:6]) or "nothing"
        raise CheckpointError(f"{path}: not a PSCR checkpoint: no {' and no '.join(map(repr, missing))} in it ({keys})")
    return content


def _state_dict(path: Path, content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return the tensors of one part of a checkpoint, by the keys of the network itself."""
    value = content[name]
    if not isinstance(value, Mapping) or not value:
        raise CheckpointError(f"{path}: {name!r} is not a state dict")
    for key, tensor in value.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name!r} is not a state dict: {key!r} is a {type(tensor).__name__}")
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(f"{path}: {name}: {key} is not a plain tensor of numbers")
    return without_wrappers(value, f"{path}: {name}")


def _choose_backbone(path: Path, state: Mapping[str, Tensor], name: str, record: TrainingRecord | None) -> Backbone:
    """Return the named backbone; for "auto" the one that the record names, else the one of the eight with such keys."""
    recorded = None if record is None else str(record.settings["backbone"])
    recognised = next((spec for spec in BACKBONES.values() if spec.recognises(state)), None)
    if recorded is not None:
        if name not in ("auto", recorded):
            raise CheckpointError(f"{path}: holds {recorded}, not {name}; leave {option('--backbone')} at auto")
        return find_backbone(recorded)
    if name == "auto":
        if recognised is None:
            raise CheckpointError(
                f"{path}: unknown backbone (first keys: {', '.join(list(state)[:3])}); known: {', '.join(BACKBONES)}; "
                f"name any of timm's with {option('--backbone')} {PREFIX}NAME"
            )
        return recognised
    if recognised is not None and recognised.name != name and not name.startswith(PREFIX):
        raise CheckpointError(f"{path}: holds {recognised.name}, not {name}; leave {option('--backbone')} at auto")
    return find_backbone(name)


def _check(path: Path, part: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], spec: Backbone) -> None:
    missing = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(f"{path}: {part} lacks {_listed(missing)}")
    unexpected = [key for key in found if key not in wanted and not spec.is_unused(key)]
    if unexpected:
        raise CheckpointError(f"{path}: {part} has unexpected {_listed(unexpected)}: another network than {spec.name}")
    for key, tensor in wanted.items():
        if key not in found:
            continue
        if found[key].shape != tensor.shape:
            raise CheckpointError(f"{path}: {part}: {key} has shape {list(found[key].shape)}, not {list(tensor.shape)}")
        if found[key].is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(f"{path}: {part}: {key} is {found[key].dtype}, not {tensor.dtype}")
    broken = [key for key in wanted if key in found and not bool(torch.isfinite(found[key].float()).all())]
    if broken:
        raise CheckpointError(f"{path}: {part} has NaN or infinite values in {_listed(broken)}; training diverged?")


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{len(keys)} key{'s' * (len(keys) > 1)}: {', '.join(keys[:3])}{more}"


def _number(value: object) -> float | None:
    """Return a plain number, or None for anything else: facts about training are optional."""
    if isinstance(value, int | float | np.generic):
        try:
            number = float(value)
        except (OverflowError, TypeError, ValueError):
            return None
        return number if math.isfinite(number) else None
    return None
