"""Score images by some of their patches: features of each patch, and scores of their means, on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, Exemplars
from ..errors import BackendError, one_line
from ..host import usable_cpus
from ..records import Pixels
from ..stages.infer import BatchScores
from .graph_cache import session
from .patch_graph import MODEL_INPUTS, halve


class PatchwiseEngine:
    """Runs the two halves of a scoring graph in ONNX Runtime.

    Args:
        graph: the bundle's .onnx file.
        exemplars: the exemplar cache that images are scored against.
        precision: the graph's.
        threads: how many may compute at once; None for all usable cores.
        throughput: whether several threads will call at once, `runs` of them, each on a core of its own; else one call
            gets all cores.
        content: identifies the graph's content; if given, optimised graphs are kept in the user's cache.

    Raises:
        MissingDependencyError: onnxruntime or onnx is not installed.
        BackendError: ONNX Runtime refuses the graph, or it can't be cut.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(
        self,
        graph: Path,
        exemplars: Exemplars,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        throughput: bool = False,
        content: str | None = None,
    ) -> None:
        self.precision = precision
        cores = threads or usable_cpus()
        self.runs = cores if throughput else 1
        self._exemplars = dict(zip(MODEL_INPUTS, (exemplars.hidden, exemplars.labels), strict=True))
        halves, threads = halve(graph), cores // self.runs
        self._trunk: Any = session(halves.trunk, content and f"{content} trunk", threads, graph)
        self._head: Any = session(halves.head, content and f"{content} head of means", threads, graph)

    @classmethod
    def open(
        cls, bundle: Bundle, precision: str, *, threads: int | None = None, throughput: bool = False
    ) -> PatchwiseEngine:
        """Load a bundle's graph of some precision; optimised graphs are kept in the user's cache.

        Raises:
            MissingDependencyError, BackendError: as above.
        """
        content = f"{bundle.digest} {bundle.info.graphs[precision].file}"
        graph = bundle.graph_path(precision)
        return cls(
            graph, bundle.exemplars, precision=precision, threads=threads, throughput=throughput, content=content
        )

    def features(self, patches: Pixels) -> NDArray[np.float32]:
        """Compute the features of N patches, uint8 [N, P, P, 3] → float32 [N, C].

        Raises:
            BackendError: ONNX Runtime fails.
        """
        out = np.asarray(self._run(self._trunk, ["patch_features"], {"patches": patches}, len(patches))[0])
        return out.reshape(len(patches), -1)  # some trunks leave axes of size 1

    def compare(self, features: NDArray[np.float32]) -> BatchScores:
        """Score B images by the means of their patches' features, float32 [B, C].

        Raises:
            BackendError: ONNX Runtime fails.
        """
        outputs = [output.name for output in self._head.get_outputs()]
        inputs = {"mean_features": features, **self._exemplars}
        found = dict(zip(outputs, self._run(self._head, outputs, inputs, len(features)), strict=True))
        return BatchScores(found["score"], found["exemplar_scores"], found.get("features", features))

    @staticmethod
    def _run(run_by: Any, outputs: list[str], inputs: dict[str, Any], count: int) -> list[Any]:
        try:
            found: list[Any] = run_by.run(outputs, inputs)
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed on {count} patches: {one_line(error, 300)}") from error
        return found
