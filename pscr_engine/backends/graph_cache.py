"""Keep graphs that an engine has prepared for this processor in the user's cache, so that starts are quicker."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..errors import BackendError, MissingDependencyError, one_line
from ..host import cache_folder, processor

log = logging.getLogger("pscr_engine")

T = TypeVar("T")

# Optimised graphs hold their weights, and ONNX can't hold more than two gigabytes in one file.
_MAX_BYTES = 1_800_000_000
_KEPT = 16


def session(graph: Path | bytes, content: str | None, threads: int, shown: Path) -> Any:
    """Create an ONNX Runtime session of `graph` on the CPU.

    Args:
        graph: the .onnx file, or what would be in one.
        content: identifies its content, and so its optimised form in the cache; None to leave the cache alone.
        threads: how many compute one call; with 1, the thread that calls.
        shown: the bundle's file, for messages.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        BackendError: ONNX Runtime refuses the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "scoring on a CPU", "cpu") from error

    def options() -> Any:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 3
        return settings

    def create(file: Path | bytes, settings: Any) -> Any:
        model = file if isinstance(file, bytes) else str(file)
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])

    def optimise(part: Path) -> Any:
        settings = options()
        settings.optimized_model_filepath = str(part)
        return create(graph, settings)

    def read(file: Path) -> Any:
        settings = options()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return create(file, settings)

    try:
        size = len(graph) if isinstance(graph, bytes) else graph.stat().st_size
        if content is None or size > _MAX_BYTES:
            return create(graph, options())
        cached = cached_file([content, onnxruntime.__version__], ".onnx")
        return reused(cached, read) or kept(cached, optimise) or create(graph, options())
    except Exception as error:
        raise BackendError(f"{shown}: ONNX Runtime can't run it: {one_line(error, 300)}") from error


def reused(cached: Path, read: Callable[[Path], T]) -> T | None:
    """Return what `read` makes of a graph in the cache; None if there is none, or it is of no use and so deleted."""
    if not cached.exists():
        return None
    try:
        graph = read(cached)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, there is the bundle's graph
        log.debug("%s: not used (%s)", cached, one_line(error, 200))
        with suppress(OSError):
            cached.unlink()
        return None
    with suppress(OSError):
        os.utime(cached)
    return graph


def kept(cached: Path, write: Callable[[Path], T]) -> T | None:
    """Have `write` write a graph to the cache, and return its result; None if that fails."""
    part = cached.with_name(f"{cached.name}.{os.getpid()}.part")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        result = write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(cached)
    except Exception as error:  # noqa: BLE001 - a full or read-only cache must not stop a run
        log.debug("%s: the prepared graph was not kept (%s)", cached, one_line(error, 200))
        with suppress(OSError):
            part.unlink()
        return None
    with suppress(OSError):
        _forget_old(cached.parent)
    return result


def cached_file(identity: Sequence[Any], suffix: str) -> Path:
    """Return the file in the user's cache for a graph prepared for this processor; it need not be there.

    Args:
        identity: what else it depends on: the graph's content, the engine's version, its settings.
        suffix: of the file's name; each engine has its own.
    """
    name = json.dumps([*identity, processor()])
    return cache_folder() / "graphs" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}{suffix}"


def _forget_old(folder: Path) -> None:
    """Delete all but the graphs that were used last."""
    used: dict[Path, float] = {}
    for file in folder.iterdir():
        with suppress(OSError):  # another process may be deleting the same ones
            if file.suffix != ".part":
                used[file] = file.stat().st_mtime
    for file in sorted(used, key=used.__getitem__, reverse=True)[_KEPT:]:
        with suppress(OSError):
            file.unlink()
