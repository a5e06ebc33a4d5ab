"""The plans of a bundle: `plans/NAME.plan`, each with a `NAME.json` of what it was built for.

A plan is code for one kind of GPU and one version of TensorRT. It is used only if all that it was built for
still holds, and if its digest is the one on record.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ...atomic import atomic_file, sha256_of
from ...bundle import Bundle, Parity
from ...errors import BackendError
from ...models.shipped import shipped_at

_FOLDER = "plans"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on.

    Args:
        graph: SHA-256 of the .onnx file.
        precision: which of the bundle's graphs that is.
        tensorrt: version.
        gpu: product name.
        compute_capability: "9.0" for example.
        batch_size: B that it is made for; smaller ones run, too.
        max_exemplars: M at most.
        optimization_level: 0 to 5.
    """

    graph: str
    precision: str
    tensorrt: str
    gpu: str
    compute_capability: str
    batch_size: int
    max_exemplars: int
    optimization_level: int

    @property
    def name(self) -> str:
        """Of its files, without a suffix."""
        digest = sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]
        gpu = re.sub(r"[^a-z0-9]+", "-", self.gpu.lower()).strip("-")
        return f"{self.precision}-{gpu}-b{self.batch_size}-{digest}"


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """What `NAME.json` says.

    Args:
        key: what the plan was built for.
        sha256: of the plan.
        parity: how far its scores are from ONNX Runtime's in FP32.
        seconds: how long the build took.
    """

    key: PlanKey
    sha256: str
    parity: Parity
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """As stored."""
        return {**asdict(self), "parity": self.parity.as_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PlanRecord:
        """Read what `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        key = PlanKey(**{field.name: value["key"][field.name] for field in fields(PlanKey)})
        if not all(type(getattr(key, field.name)) is type(getattr(_TYPES, field.name)) for field in fields(PlanKey)):
            raise TypeError("key")
        return cls(key, str(value["sha256"]), Parity.from_json(value["parity"]), float(value["seconds"]))


_TYPES = PlanKey("", "", "", "", "", 0, 0, 0)


class PlanStore:
    """The `plans` folder of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.folder = bundle.path / _FOLDER

    def find(self, key: PlanKey, *, exactly: bool) -> tuple[PlanRecord, bytes] | str:
        """A plan that fits, or why there is none.

        Args:
            key: of the host, the bundle and the wish.
            exactly: whether batch size and optimisation level must be those of `key`; otherwise any plan
                for batches of `key.batch_size` or more will do (the smallest of those, the best optimised).
        """
        free = () if exactly else ("batch_size", "optimization_level", "max_exemplars")
        records = self._records()
        if not records:
            return "there is none"
        reasons = [_differences(record.key, key, free) for record in records]
        fitting = [
            record
            for record, reason in zip(records, reasons, strict=True)
            if not reason and record.key.batch_size >= key.batch_size and record.key.max_exemplars >= key.max_exemplars
        ]
        if not fitting:
            nearest = min(reasons, key=len)
            return nearest[0] if nearest else f"none is for batches of {key.batch_size}"
        record = min(fitting, key=lambda record: (record.key.batch_size, -record.key.optimization_level))
        path = self.folder / f"{record.key.name}.plan"
        try:
            plan = path.read_bytes()
        except OSError as error:
            return f"{path.name}: {error.strerror}"
        if sha256(plan).hexdigest() != record.sha256:
            return f"{path.name} is not the plan that was built (SHA-256 differs)"
        if not record.parity.passed:
            return f"{path.name} failed its parity check"
        return record, plan

    def require_writable(self) -> None:
        """Make sure that a plan can be kept, before minutes are spent on building it.

        Raises:
            BackendError: the bundle's folder can't be written.
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
                "copy with --bundle"
            ) from error

    def write(self, key: PlanKey, plan: bytes, parity: Parity, seconds: float) -> Path:
        """Keep a plan. The record appears last: without one, a plan is never loaded.

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

    def _records(self) -> list[PlanRecord]:
        """Newest first; what can't be read is not there."""
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


def _differences(built: PlanKey, wanted: PlanKey, free: tuple[str, ...]) -> list[str]:
    """What a plan was built for that no longer holds, in words."""
    words = {"tensorrt": "TensorRT", "gpu": "GPU"}
    out = []
    for field in fields(PlanKey):
        was, now = getattr(built, field.name), getattr(wanted, field.name)
        if was != now and field.name not in free:
            name = words.get(field.name, field.name.replace("_", " "))
            text = f"it was built for {name} {was}, this is {now}"
            out.append("it is of another export of the model" if field.name == "graph" else text)
    return out
