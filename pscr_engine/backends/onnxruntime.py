"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..bundle import Exemplars
from ..errors import BackendError, MissingDependencyError, one_line
from ..host import usable_cpus
from ..records import Pixels
from .base import BatchScores

# Measured (benchmarks/batch_size.py): the nine patches of one image already fill the cores; larger
# batches are no faster and take more memory.
_CPU_BATCH_SIZE = 1


class OnnxRuntimeBackend:
    """Runs a scoring graph in one ONNX Runtime session.

    Args:
        graph: the .onnx file.
        exemplars: the exemplar cache that images are scored against.
        device: "cpu".
        precision: the graph's, for messages.
        threads: how many may compute at once; None for all usable cores.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        BackendError: ONNX Runtime refuses the graph.
    """

    name = "onnxruntime"

    def __init__(
        self,
        graph: Path,
        exemplars: Exemplars,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError("onnxruntime", "scoring on a CPU", "cpu") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cpus()
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(f"{graph}: ONNX Runtime can't run it: {one_line(error, 300)}") from error
        self.device = device
        self.precision = precision
        self.batch_size = _CPU_BATCH_SIZE
        self._exemplars = {
            "exemplar_hidden": exemplars.hidden,
            "exemplar_labels": exemplars.labels,
        }

    def score(self, patches: Pixels, *, features: bool = False) -> BatchScores:
        """See `pscr_engine.backends.base.Backend.score`."""
        outputs = ["score", "exemplar_scores"] + (["features"] if features else [])
        try:
            score, exemplar_scores, *rest = self._session.run(outputs, {"patches": patches, **self._exemplars})
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed on {len(patches)} patches: {one_line(error, 300)}") from error
        return BatchScores(score, exemplar_scores, rest[0] if rest else None)
