"""The settings of a training, checked when they are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pscr_export.ranges import SEED, Range, check_ranges

from pscr_engine.errors import UsageError, option

from .data.open import Source
from .method import METHODS, PAIRS

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine")
FREEZE_ALL = ("all",)

_RANGES = {
    "val_share": Range(0, 1, above=True, below=True),
    # Trunks shrink their input 32 times; validation holds the patches of 16 images at a time, at 1024 pixels 10 GB.
    "patch_size": Range(32, 1024),
    "epochs": Range(1),
    "batch_size": Range(1, 4096),
    "accumulate": Range(1),
    "train_patches": Range(1),
    "learning_rate": Range(0, 1, above=True),
    "head_learning_rate": Range(0, 1, above=True),
    "average": Range(0, 1, below=True),
    "weight_decay": Range(0, 1),
    "workers": Range(0, 256),
    "cache_mb": Range(0),
    "seed": SEED,
}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of `pscr-engine train`, by the names of its options."""

    source: Source
    out: Path = Path("trained")
    split: str = "random"
    val_share: float = 0.1
    backbone: str = "resnet18"
    weights: str = "imagenet"
    method: str = "contrastive"
    pairs: str = "partner"
    sampling: str = "ops"
    patch_size: int | None = None
    epochs: int = 100
    batch_size: int = 8
    accumulate: int = 1
    train_patches: int | None = None
    train_sampling: str | None = None
    freeze: tuple[str, ...] = ()
    freeze_batch_norms: bool = False
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    head_learning_rate: float | None = None
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    average: float = 0.0
    weight_decay: float = 1e-5
    amp: bool = False
    device: str = "auto"
    workers: int = 0
    seed: int = 1
    cache_mb: int = 2000
    tensorboard: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"method {self.method!r}: choose from {', '.join(METHODS)}")
        if self.pairs not in PAIRS:
            raise UsageError(f"pairs {self.pairs!r}: choose from {', '.join(PAIRS)}")
        if self.pairs == "all" and self.batch_size < 2:
            raise UsageError(
                f"{option('--pairs', 'all')}: compares the images of a batch, so {option('--batch-size')} must be at "
                f"least 2"
            )
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise UsageError(f"--{name} {getattr(self, name)!r}: choose from {', '.join(known)}")
        check_ranges(self, _RANGES)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UsageError(
                f"{option('--warmup-epochs')} {self.warmup_epochs:g}: must be from 0 to below {option('--epochs')}, "
                f"{self.epochs}"
            )

    def settings(self) -> dict[str, Any]:
        """Return the settings that the weights depend on, beside the data; a training goes on only with the same."""
        values = asdict(self)
        values["freeze"] = list(self.freeze)
        if self.schedule == "cosine":
            values["schedule"] = f"cosine over {self.epochs} epochs"
        for name in (
            "source",
            "out",
            "split",
            "val_share",
            "epochs",
            "device",
            "workers",
            "cache_mb",
            "tensorboard",
            "overwrite",
        ):
            del values[name]
        return values
