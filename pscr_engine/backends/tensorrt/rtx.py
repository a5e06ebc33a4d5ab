"""What TensorRT for RTX alone has: targets named without a GPU, and kernels compiled on the GPU that runs them.

Source: docstrings of its bindings 1.4 to 1.7.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ...atomic import atomic_file
from ...errors import BackendError, UsageError, option
from .library import loaded_tensorrt
from .logger import LOGGER
from .plans import PORTABLE

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt
else:
    trt = loaded_tensorrt()

log = logging.getLogger("pscr_engine")


def set_targets(config: trt.IBuilderConfig, targets: str) -> None:
    """Set which GPUs a plan is built for.

    Args:
        config: the build's configuration.
        targets: `PORTABLE`, or compute capabilities, "8.6,8.9".

    Raises:
        UsageError: this version of the library doesn't know one of them.
    """
    if targets == PORTABLE:
        return
    names, known = targets.split(","), known_targets()
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        capability = known.get(name)
        if capability is None or not config.set_compute_capability(capability, index):
            raise UsageError(
                f"{option('--compute-capability')} {name}: TensorRT for RTX {trt.__version__} knows {', '.join(known)}"
            )


def known_targets() -> dict[str, trt.ComputeCapability]:
    """Return the compute capabilities that can be named, "8.6" for SM86."""
    targets = {}
    for name, value in trt.ComputeCapability.__members__.items():
        if match := re.fullmatch(r"SM(\d+)(\d)", name):
            targets[f"{match[1]}.{match[2]}"] = value
    return dict(sorted(targets.items(), key=lambda entry: tuple(map(int, entry[0].split(".")))))


def require_valid(runtime: trt.Runtime, plan: bytes, gpu: str) -> None:
    """Ask the library whether it will run a plan on the current GPU.

    Raises:
        BackendError: the library refuses.
    """
    validity, _ = runtime.get_engine_validity(plan)
    if validity == trt.EngineValidity.INVALID:
        raise BackendError(f"TensorRT for RTX does not run this plan on {gpu}: {LOGGER.reasons()}")
    if validity == trt.EngineValidity.SUBOPTIMAL:
        log.info("TensorRT for RTX says that this plan is not the best one for %s", gpu)


class Kernels:
    """The kernels that the library compiles on this GPU, kept in a file for the next process.

    Args:
        engine: the plan, loaded; its GPU is current in this thread.
        file: the file that keeps them.
        record: whether the library records its work as a CUDA graph itself.
    """

    def __init__(self, engine: trt.ICudaEngine, file: Path, *, record: bool = False) -> None:
        self._file, self._kept = file, b""
        self.config = engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        # Shapes repeat, batch after batch, so kernels compiled for them at once are worth the time.
        self.config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        strategy = trt.CudaGraphStrategy
        self.config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if record else strategy.DISABLED
        self._cache = self.config.create_runtime_cache()
        try:
            content = file.read_bytes()
        except OSError:
            content = b""
        # The library checks by itself that they are of this version, GPU and driver.
        if content and self._cache.deserialize(content):
            self._kept = content
        elif content:
            log.info("%s: kernels of another version, GPU or driver; they are compiled again", file)
        self.config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write the file again if there are new kernels; a folder that can't be written is no error."""
        content = bytes(self._cache.serialize())
        if content == self._kept:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(self._file) as file:
                file.write_bytes(content)
        except OSError as error:
            log.info("%s: compiled kernels can't be kept (%s)", self._file, error.strerror)
        self._kept = content
