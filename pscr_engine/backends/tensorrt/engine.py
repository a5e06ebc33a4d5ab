"""The engine that runs a TensorRT plan."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ...cuda.device import Device, DeviceBuffer, Stream
from ...cuda.engine import Shape, Tensors
from ...cuda.exemplars import ResidentExemplars
from ...cuda.recorded_graph import CaptureError, Graph
from ...errors import BackendError, option
from .library import FULL, RTX, loaded_tensorrt
from .logger import LOGGER

if TYPE_CHECKING:
    import tensorrt as trt

    from .rtx import Kernels
else:
    trt = loaded_tensorrt()

log = logging.getLogger("pscr_engine")

# While the last kernels of one batch leave multiprocessors of the GPU idle, the next batch begins there.
_LANES = 2


class TensorRtEngine:
    """An `Engine` that runs a TensorRT plan; each lane has its own context, memory and stream, but not its own weights.

    Args:
        plan: for this GPU and this TensorRT, from the bundle's own store: a plan is code.
        device: the GPU, current in this thread. (Without CUDA at work, TensorRT crashes.)
        exemplars: the exemplar cache on the device.
        shape: sizes of the graph's tensors.
        precision: the graph's.
        batch_size: B, no more than the plan was built for.
        kernels: file for kernels that are compiled on this GPU; TensorRT for RTX only.
        recorded_by: "us", or "library" for TensorRT for RTX's own recording of CUDA graphs.

    Raises:
        DeviceMemoryError: the device has too little memory.
        BackendError: TensorRT refuses the plan.
    """

    def __init__(
        self,
        plan: bytes,
        device: Device,
        exemplars: ResidentExemplars,
        shape: Shape,
        *,
        precision: str,
        batch_size: int,
        kernels: Path | None = None,
        recorded_by: str = "us",
    ) -> None:
        self.name = FULL.name if kernels is None else RTX.name
        self._shape, self.precision, self.version = shape, precision, str(trt.__version__)
        self._runtime = trt.Runtime(LOGGER)
        if kernels is not None:
            from . import rtx

            rtx.require_valid(self._runtime, plan, device.name)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise LOGGER.failure("TensorRT refuses the plan")
        self._kernels: Kernels | None = None
        if kernels is not None:
            self._kernels = rtx.Kernels(self._engine, kernels, record=recorded_by == "library")
        recording = recorded_by == "us"
        self._lanes = [
            _Lane(self._context(), self._engine.device_memory_size_v2, device, exemplars, shape, recording=recording)
            for _ in range(_LANES)
        ]
        self.streams: tuple[Stream, ...] = tuple(lane.stream for lane in self._lanes)
        self.resize(batch_size)

    def _context(self) -> trt.IExecutionContext:
        assert self._engine is not None
        if self._kernels is None:
            strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(strategy)
        else:
            context = self._engine.create_execution_context(self._kernels.config)
        if context is None:
            raise LOGGER.failure("TensorRT can't run the plan")
        return context

    def resize(self, batch_size: int) -> None:
        """Change the batch size of all lanes."""
        for lane in self._lanes:
            lane.resize(batch_size, self._shape)
        self.batch_size = batch_size
        self._new_shapes = True

    def enqueue(self, tensors: Tensors, lane: int = 0) -> None:
        """Enqueue the plan for one batch on a lane."""
        self._lanes[lane].enqueue(tensors)
        if self._new_shapes:
            self._new_shapes = False
            self._keep_kernels()

    def close(self) -> None:
        """Give all memory back, after saving the kernels that were compiled."""
        self._keep_kernels()
        for lane in self._lanes:
            lane.close()
        del self._lanes, self._kernels, self._engine, self._runtime

    def _keep_kernels(self) -> None:
        if self._kernels is not None:
            self._kernels.keep()


class _Lane:
    """An execution context, whose work is recorded as a CUDA graph when it first runs: shapes and addresses repeat."""

    def __init__(
        self,
        context: trt.IExecutionContext,
        scratch_bytes: int,
        device: Device,
        exemplars: ResidentExemplars,
        shape: Shape,
        *,
        recording: bool,
    ) -> None:
        self.stream = device.stream()
        self._graphs: dict[Tensors, Graph] = {}
        self._recording = recording
        self._context = context
        self._scratch: DeviceBuffer = device.allocate(scratch_bytes)
        context.set_device_memory(self._scratch.address, self._scratch.nbytes)
        self._set_address("exemplar_hidden", exemplars.hidden.address)
        self._set_address("exemplar_labels", exemplars.labels.address)
        self._set_shape("exemplar_hidden", (shape.exemplars, shape.feature_size))
        self._set_shape("exemplar_labels", (shape.exemplars,))

    def resize(self, batch_size: int, shape: Shape) -> None:
        self._free_graphs()
        self._set_shape("patches", (batch_size * shape.patches, shape.patch_size, shape.patch_size, 3))
        if missing := self._context.infer_shapes():
            raise BackendError(
                f"the plan wants inputs that this bundle has not: {', '.join(missing)}; compile it again"
            )

    def enqueue(self, tensors: Tensors) -> None:
        graph = self._graphs.get(tensors)
        if graph is not None:
            graph.launch()
            return
        for name, address in zip(Tensors._fields, tensors, strict=True):
            self._set_address(name, address)
        self._execute()  # before recording: TensorRT puts some work off until the first run
        if self._recording:
            try:
                self._graphs[tensors] = Graph(self.stream, self._execute)
            except CaptureError as error:
                self._recording = False
                log.info("TensorRT's work is not recorded as a CUDA graph, but enqueued each time: %s", error)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self.stream.handle):
            raise LOGGER.failure("TensorRT failed")

    def close(self) -> None:
        self.stream.synchronize()
        self._free_graphs()
        self._scratch.free()
        del self._context

    def _free_graphs(self) -> None:
        for graph in self._graphs.values():
            graph.free()
        self._graphs.clear()

    def _set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise BackendError(f"the plan has no tensor {name}; compile it again ({LOGGER.reasons()})")

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(name, shape):
            raise BackendError(
                f"the plan takes no {name} {list(shape)}: use a smaller {option('--batch-size')}, or compile it again"
            )
