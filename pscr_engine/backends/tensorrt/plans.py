"""The plans of a bundle: `plans/NAME.plan`, each with a `NAME.json` of what it was built for.

A plan is code for one version of TensorRT and one kind of GPU, or for several where TensorRT for RTX built it. It is
used only if all that it was built for still holds, and if its digest is the one on record. One that was built without
a GPU has no parity on record; it is checked at its first use on each kind of GPU (`plan_checks`).
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ...atomic import atomic_file, sha256_of
from ...bundle import Bundle, Parity
from ...cuda.device import Device
from ...errors import BackendError, option
from ...models.shipped import shipped_at
from .library import FLAVOURS, RTX, Flavour, require_tensorrt

PORTABLE = "portable"
"""Targets of a plan that names none: compute capability 8.0, 8.6, 8.9, 12.0 and later, as NVIDIA says."""

_FOLDER = "plans"
DEFAULT_BATCH_SIZE = 64
DEFAULT_OPTIMIZATION_LEVEL = 3


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on.

    Args:
        graph: SHA-256 of the .onnx file.
        precision: which of the bundle's graphs that is.
        flavour: which TensorRT, see `library.FLAVOURS`.
        tensorrt: its version.
        gpu: product name; "" for a plan for several kinds.
        compute_capability: "9.0" for example; for several kinds, "8.6,8.9", or "portable".
        batch_size: B that it is made for; smaller ones run, too.
        max_exemplars: M at most.
        optimization_level: 0 to 5.
    """

    graph: str
    precision: str
    flavour: str
    tensorrt: str
    gpu: str
    compute_capability: str
    batch_size: int
    max_exemplars: int
    optimization_level: int

    @property
    def name(self) -> str:
        """Return the name of the plan's files, without a suffix."""
        digest = sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]
        made_for = self.gpu or f"rtx {self.compute_capability}"
        return f"{self.precision}-{slug(made_for)}-b{self.batch_size}-{digest}"


def slug(text: str) -> str:
    """Turn a text into part of a file's name: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """The content of `NAME.json`.

    Args:
        key: what the plan was built for.
        sha256: the plan's SHA-256.
        parity: how far its scores are from ONNX Runtime's in FP32; None if there was no GPU to find out.
        seconds: how long the build took.
    """

    key: PlanKey
    sha256: str
    parity: Parity | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Convert the record to what `NAME.json` stores."""
        return {**asdict(self), "parity": None if self.parity is None else self.parity.as_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PlanRecord:
        """Read what `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: the value is something else.
        """
        key = PlanKey(**{field.name: value["key"][field.name] for field in fields(PlanKey)})
        if not all(type(getattr(key, field.name)) is type(getattr(_TYPES, field.name)) for field in fields(PlanKey)):
            raise TypeError("key")
        if value["parity"] is None and key.flavour != RTX.name:
            raise ValueError("parity")
        parity = None if value["parity"] is None else Parity.from_json(value["parity"])
        return cls(key, str(value["sha256"]), parity, float(value["seconds"]))


_TYPES = PlanKey("", "", "", "", "", "", 0, 0, 0)


class PlanStore:
    """The `plans` folder of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.folder = bundle.path / _FOLDER

    def flavours(self) -> list[Flavour]:
        """List the TensorRT libraries that the bundle has plans of, in the order in which to try them."""
        present = {record.key.flavour for record in self.records()}
        return [flavour for name, flavour in FLAVOURS.items() if name in present]

    def find(self, key: PlanKey, *, exactly: bool) -> tuple[PlanRecord, bytes] | str:
        """Find a plan that fits; return its record and content, or else why there is none.

        Args:
            key: what the plan must be made for; with one compute capability, unless `exactly`.
            exactly: whether batch size, optimisation level and targets must be those of `key`; otherwise any plan
                for batches of `key.batch_size` or more will do (the smallest of those, the best optimised).
        """
        free = () if exactly else ("batch_size", "optimization_level", "max_exemplars")
        records = self.records()
        if not records:
            return "there is none"
        reasons = [_differences(record.key, key, free, exactly) for record in records]
        fitting = [
            record
            for record, reason in zip(records, reasons, strict=True)
            if not reason and record.key.batch_size >= key.batch_size and record.key.max_exemplars >= key.max_exemplars
        ]
        if not fitting:
            nearest = min(reasons, key=len)
            return nearest[0] if nearest else f"none is for batches of {key.batch_size}"
        record = min(
            fitting,
            key=lambda record: (
                record.key.batch_size,
                record.key.compute_capability == PORTABLE,
                -record.key.optimization_level,
            ),
        )
        path = self.folder / f"{record.key.name}.plan"
        try:
            plan = path.read_bytes()
        except OSError as error:
            return f"{path.name}: {error.strerror}"
        if sha256(plan).hexdigest() != record.sha256:
            return f"{path.name} is not the plan that was built (SHA-256 differs)"
        if record.parity is not None and not record.parity.passed:
            return f"{path.name} failed its parity check"
        return record, plan

    def require_writable(self, nbytes: int = 0) -> None:
        """Make sure that a plan can be kept, before minutes are spent on building it.

        Args:
            nbytes: the largest size that the plan may have.

        Raises:
            BackendError: the bundle's folder can't be written, or its disk has too little room.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            with TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            model = shipped_at(self.folder.parent)
            copy = "copy the bundle to a folder of yours"
            if model is not None:
                copy = f"copy it first (pscr-engine models {model.name} --copy model.pscr)"
            raise BackendError(
                f"{self.folder}: plans are kept there, and it can't be written ({error.strerror}); {copy} and name the "
                f"copy with {option('--bundle')}"
            ) from error
        free = shutil.disk_usage(self.folder).free
        if free < nbytes:
            raise BackendError(
                f"{self.folder}: the disk has {free / 1e6:.0f} MB left, a plan may take {nbytes / 1e6:.0f}; make room, "
                "or copy the bundle elsewhere"
            )

    def write(self, key: PlanKey, plan: bytes, parity: Parity | None, seconds: float) -> Path:
        """Write a plan, then its record, without which no plan is ever loaded; return the plan's path.

        Raises:
            BackendError: the bundle's folder can't be written.
        """
        path = self.folder / f"{key.name}.plan"
        try:
            self.folder.mkdir(exist_ok=True)
            with atomic_file(path) as file:
                file.write_bytes(plan)
            record = PlanRecord(key, sha256_of(path), parity, round(seconds, 1))
            with atomic_file(path.with_suffix(".json")) as file:
                file.write_text(json.dumps(record.as_json(), indent=2) + "\n")
        except OSError as error:
            raise BackendError(
                f"{self.folder}: can't write the plan ({error.strerror}); copy the bundle to a folder of yours"
            ) from error
        return path

    def records(self) -> list[PlanRecord]:
        """Return the records of all plans, newest first, without those that can't be read."""
        files = sorted(self.folder.glob("*.json"), key=lambda file: -file.stat().st_mtime)
        records = []
        for file in files:
            try:
                record = PlanRecord.from_json(json.loads(file.read_text()))
            except (OSError, ValueError, LookupError, TypeError):
                continue
            if file.stem == record.key.name:
                records.append(record)
        return records


def plan_key(
    bundle: Bundle, flavour: Flavour, device: Device | None, precision: str, batch_size: int, optimization_level: int
) -> PlanKey:
    """Build the key of a plan for a bundle, this host's TensorRT and a GPU (None: the caller adds the targets).

    Raises:
        MissingDependencyError, BackendError: `library.require_tensorrt` can't load the library.
    """
    capability = "" if device is None else ".".join(map(str, device.compute_capability))
    return PlanKey(
        graph=sha256_of(bundle.graph_path(precision)),
        precision=precision,
        flavour=flavour.name,
        tensorrt=require_tensorrt(flavour),
        gpu="" if device is None or flavour is RTX else device.name,
        compute_capability=capability,
        batch_size=batch_size,
        max_exemplars=bundle.exemplars.count,
        optimization_level=optimization_level,
    )


def covers(targets: str, compute_capability: str) -> bool:
    """Tell whether a plan for these targets may run on a GPU; for a portable plan, its library has the last word."""
    return targets == PORTABLE or compute_capability in targets.split(",")


def _differences(built: PlanKey, wanted: PlanKey, free: tuple[str, ...], exactly: bool) -> list[str]:
    """List, in words, how what a plan was built for differs from what is wanted."""
    words = {"tensorrt": FLAVOURS[wanted.flavour].title, "gpu": "GPU"}
    if built.flavour != wanted.flavour:
        return [f"it was built by {built.flavour}"]
    out = []
    for field in fields(PlanKey):
        was, now = getattr(built, field.name), getattr(wanted, field.name)
        if field.name == "compute_capability" and wanted.flavour == RTX.name and not exactly and covers(was, now):
            continue
        if was != now and field.name not in free:
            name = words.get(field.name, field.name.replace("_", " "))
            text = f"it was built for {name} {was}, this is {now}"
            out.append("it is of another export of the model" if field.name == "graph" else text)
    return out
