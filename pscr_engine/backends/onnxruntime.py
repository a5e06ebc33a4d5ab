"""The backend for processors: ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..bundle import Exemplars
from ..errors import BackendError, one_line
from ..host import usable_cpus
from ..records import Pixels
from ..stages.base import StageSettings
from ..stages.infer import BatchScores, Inference
from ..stages.on_host import HostStages
from .graph_cache import session

# Measured (benchmarks/int8.py): the nine patches of one image already fill the cores, larger batches are no faster
# and take more memory; except in INT8, where batches of a few images make up for what is not computed in integers.
_CPU_BATCH_SIZE, _INT8_BATCH_SIZE = 1, 4
# In FP32, up to so many cores are as fast together on one image as each on its own; more have too little to do.
_CORES_PER_RUN = 4


class OnnxRuntimeBackend:
    """Runs a scoring graph in one ONNX Runtime session.

    Args:
        graph: the .onnx file.
        exemplars: the exemplar cache that images are scored against.
        device: "cpu".
        precision: the graph's.
        threads: how many may compute at once; None for all usable cores.
        throughput: whether several threads will call `score` at once, `runs` of them, each on cores of its own;
            else one call gets all cores.
        content: identifies the graph's content; if given, the optimised graph is kept in the user's cache.

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
        throughput: bool = False,
        content: str | None = None,
    ) -> None:
        cores = threads or usable_cpus()
        # Runs share one session, and so its weights. With several, each computes in the thread that asks for it.
        alone = not throughput or (precision != "int8" and cores <= _CORES_PER_RUN)
        self.runs = 1 if alone else cores
        self._session: Any = session(graph, content, cores if alone else 1, graph)
        self.device = device
        self.precision = precision
        self.batch_size = _INT8_BATCH_SIZE if precision == "int8" and throughput else _CPU_BATCH_SIZE
        self._exemplars = {
            "exemplar_hidden": exemplars.hidden,
            "exemplar_labels": exemplars.labels,
        }

    def stages(self, settings: StageSettings) -> HostStages:
        """Open the stages on the processor, as `Backend.stages` describes."""
        return HostStages(Inference(self, settings), settings)

    def close(self) -> None:
        """Do nothing: the session is freed with the last reference to it."""

    def score(self, patches: Pixels, *, features: bool = False) -> BatchScores:
        """Score B images by their patches, uint8 [B·D, P, P, 3], D consecutive ones per image.

        Raises:
            BackendError: ONNX Runtime fails.
        """
        outputs = ["score", "exemplar_scores"] + (["features"] if features else [])
        try:
            score, exemplar_scores, *rest = self._session.run(outputs, {"patches": patches, **self._exemplars})
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed on {len(patches)} patches: {one_line(error, 300)}") from error
        return BatchScores(score, exemplar_scores, rest[0] if rest else None)
