"""Run a plan."""

from __future__ import annotations

import logging

import tensorrt as trt

from ...cuda.device import Device, DeviceBuffer, Stream
from ...cuda.engine import Shape, Tensors
from ...cuda.exemplars import ResidentExemplars
from ...cuda.graph import CaptureError, Graph
from ...errors import BackendError
from .logger import Logger

log = logging.getLogger("pscr_engine")

# While one batch runs out, on ever fewer of the processors, the next one begins.
_LANES = 2


class TensorRtEngine:
    """See `cuda.engine.Engine`. Each lane has an execution context, its memory and its stream; they share the weights.

    Args:
        plan: for this GPU and this TensorRT, from the bundle's own store: a plan is code.
        device: the GPU, current in this thread. (Without CUDA at work, TensorRT crashes.)
        exemplars: on the device.
        shape: of the graph's tensors.
        precision: the graph's.
        batch_size: B, no more than the plan was built for.

    Raises:
        DeviceMemoryError: there is no room for it.
        BackendError: TensorRT refuses the plan.
    """

    name = "tensorrt"

    def __init__(
        self,
        plan: bytes,
        device: Device,
        exemplars: ResidentExemplars,
        shape: Shape,
        *,
        precision: str,
        batch_size: int,
    ) -> None:
        self._shape, self.precision, self.version = shape, precision, str(trt.__version__)
        self._logger = Logger()
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._logger.failure("TensorRT refuses the plan")
        self._lanes = [_Lane(self._engine, device, exemplars, shape, self._logger) for _ in range(_LANES)]
        self.streams: tuple[Stream, ...] = tuple(lane.stream for lane in self._lanes)
        self.resize(batch_size)

    def resize(self, batch_size: int) -> None:
        """See `cuda.engine.Engine.resize`."""
        for lane in self._lanes:
            lane.resize(batch_size, self._shape)
        self.batch_size = batch_size

    def enqueue(self, tensors: Tensors, lane: int = 0) -> None:
        """See `cuda.engine.Engine.enqueue`."""
        self._lanes[lane].enqueue(tensors)

    def close(self) -> None:
        """See `cuda.engine.Engine.close`."""
        for lane in self._lanes:
            lane.close()
        del self._lanes, self._engine, self._runtime


class _Lane:
    """One execution context. Shapes and addresses repeat, so after the first time its work is a recorded graph."""

    def __init__(
        self, engine: trt.ICudaEngine, device: Device, exemplars: ResidentExemplars, shape: Shape, logger: Logger
    ) -> None:
        self.stream = device.stream()
        self._logger = logger
        self._graphs: dict[Tensors, Graph] = {}
        self._recording = True
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise logger.failure("TensorRT can't run the plan")
        self._context = context
        self._scratch: DeviceBuffer = device.allocate(engine.device_memory_size_v2)
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
        self._execute()  # also what TensorRT puts off until the first time
        if self._recording:
            try:
                self._graphs[tensors] = Graph(self.stream, self._execute)
            except CaptureError as error:
                self._recording = False
                log.info("TensorRT's work is not recorded as a CUDA graph, but enqueued each time: %s", error)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self.stream.handle):
            raise self._logger.failure("TensorRT failed")

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
            raise BackendError(f"the plan has no tensor {name}; compile it again ({self._logger.reasons()})")

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(name, shape):
            raise BackendError(
                f"the plan takes no {name} {list(shape)}: use a smaller --batch-size, or compile it again"
            )
