"""The other backend for processors: OpenVINO, which is often faster than ONNX Runtime on the same cores."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..bundle import Exemplars
from ..errors import BackendError, MissingDependencyError, one_line, option
from ..host import MadeOnce, usable_cpus
from ..records import Pixels
from ..stages.base import StageSettings
from ..stages.infer import BatchScores, Inference
from ..stages.on_host import HostStages
from .graph_cache import cached_file, kept, reused
from .openvino_graph import arranged

# Without a hint, OpenVINO computes FP32 graphs in BF16 where the processor can.
_HINTS = {"fp32": "f32", "fp16": "f32", "int8": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """Runs a scoring graph in OpenVINO, compiled for one image per call; several calls may run at once.

    Args:
        graph: the .onnx file.
        exemplars: the exemplar cache that images are scored against.
        patches: D, patches per image.
        patch_size: P, their side in pixels.
        precision: "fp32", "fp16" or "int8" of the graph, or "bf16", which computes an FP32 graph in BF16.
        threads: how many may compute at once; None for all usable cores.
        throughput: whether several threads will call `score` at once, `runs` of them; else one call gets all cores.
        content: identifies the graph's content; if given, the compiled graph is kept in the user's cache.

    Raises:
        MissingDependencyError: openvino is not installed, or onnx, which an INT8 graph needs.
        BackendError: OpenVINO can't be loaded, refuses the graph, or has no BF16 on this processor.
    """

    name = "openvino"
    device = "cpu"
    # Fixed shapes are faster, and the nine patches of one image fill the cores.
    batch_size = 1

    def __init__(
        self,
        graph: Path,
        exemplars: Exemplars,
        *,
        patches: int,
        patch_size: int,
        precision: str = "fp32",
        threads: int | None = None,
        throughput: bool = False,
        content: str | None = None,
    ) -> None:
        core = openvino_core()
        import openvino

        if precision == "bf16" and not has_bf16():
            raise BackendError(
                f"{option('--precision', 'bf16')}: this processor has no BF16 instructions (AVX-512 BF16 or AMX)"
            )
        self.precision = precision
        self._patches = patches
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or usable_cpus(),
            # Pinned threads of several workers would share the first cores and leave the others idle.
            "ENABLE_CPU_PINNING": False,
        }
        shapes = {
            "patches": [patches, patch_size, patch_size, 3],
            "exemplar_hidden": list(exemplars.hidden.shape),
            "exemplar_labels": list(exemplars.labels.shape),
        }
        try:
            compiled = _compile(core, graph, shapes, settings, content)
            # OpenVINO's own rule: as many streams as use the cores well together on this network.
            self.runs = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) if throughput else 1
            self._requests: SimpleQueue[Any] = SimpleQueue()
            for _ in range(self.runs):
                request = compiled.create_infer_request()
                for name, values in (("exemplar_hidden", exemplars.hidden), ("exemplar_labels", exemplars.labels)):
                    request.set_tensor(name, openvino.Tensor(np.ascontiguousarray(values)))  # a copy, the request's own
                self._requests.put(request)
        except MissingDependencyError:
            raise
        except Exception as error:
            raise BackendError(f"{graph}: OpenVINO can't run it: {one_line(error, 300)}") from error

    def stages(self, settings: StageSettings) -> HostStages:
        """Open the stages on the processor, as `Backend.stages` describes."""
        return HostStages(Inference(self, settings), settings)

    def close(self) -> None:
        """Do nothing: the network is freed with the last reference to it."""

    def score(self, patches: Pixels, *, features: bool = False) -> BatchScores:
        """Score B images by their patches, uint8 [B·D, P, P, 3], D consecutive ones per image.

        Raises:
            BackendError: OpenVINO fails.
        """
        request = self._requests.get()
        try:
            answers = [
                self._score_image(request, patches[start : start + self._patches], features)
                for start in range(0, len(patches), self._patches)
            ]
        except Exception as error:
            raise BackendError(f"OpenVINO failed on {len(patches)} patches: {one_line(error, 300)}") from error
        finally:
            self._requests.put(request)
        scores, exemplar_scores, rows = zip(*answers, strict=True)
        return BatchScores(
            np.concatenate(scores), np.concatenate(exemplar_scores), np.concatenate(rows) if features else None
        )

    @staticmethod
    def _score_image(request: Any, patches: Pixels, features: bool) -> tuple[Any, ...]:
        """Score one image; outputs are copied, as the next call overwrites them."""
        import openvino

        patches = np.ascontiguousarray(patches)  # lent for this call: a tensor does not keep its array alive
        request.set_tensor("patches", openvino.Tensor(patches, shared_memory=True))
        request.infer()
        names = ("score", "exemplar_scores", *(("features",) if features else ()))
        outputs = [np.array(request.get_tensor(name).data) for name in names]
        return (*outputs, *([None] if not features else []))


@MadeOnce
def openvino_core() -> Any:
    """Return OpenVINO's core, one per process.

    Raises:
        MissingDependencyError: openvino is not installed.
        BackendError: it can't be loaded here.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingDependencyError("openvino", "scoring with OpenVINO", "cpu,openvino") from error
    except Exception as error:
        raise BackendError(f"OpenVINO can't be loaded: {one_line(error, 300)}") from error
    try:
        core = openvino.Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")
    except Exception as error:
        raise BackendError(f"OpenVINO does not start: {one_line(error, 300)}") from error
    return core


def openvino_version() -> str:
    """Return OpenVINO's version, with its build.

    Raises:
        MissingDependencyError, BackendError: see `openvino_core`.
    """
    openvino_core()
    import openvino

    return str(openvino.get_version())


def has_bf16() -> bool:
    """Tell whether OpenVINO computes in BF16 on this processor.

    Raises:
        MissingDependencyError, BackendError: see `openvino_core`.
    """
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _compile(
    core: Any, graph: Path, shapes: dict[str, list[int]], settings: dict[str, Any], content: str | None
) -> Any:
    """Compile a graph for fixed shapes, or read what was compiled before from the user's cache."""
    cached = None if content is None else cached_file([content, openvino_version(), shapes, settings], ".openvino")
    if cached is not None:
        compiled = reused(cached, lambda file: core.import_model(file.read_bytes(), "CPU", settings))
        if compiled is not None:
            return compiled
    model = core.read_model(arranged(graph))
    model.reshape(shapes)
    compiled = core.compile_model(model, "CPU", settings)
    if cached is not None:
        kept(cached, lambda part: part.write_bytes(compiled.export_model().getvalue()))
    return compiled
