"""Run a plan."""

from __future__ import annotations

import tensorrt as trt

from ...cuda.device import Device, DeviceBuffer, DeviceMemoryError
from ...cuda.engine import Shape, Tensors
from ...cuda.exemplars import ResidentExemplars
from ...errors import BackendError
from .logger import Logger


class TensorRtEngine:
    """See `cuda.engine.Engine`.

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
        self._device, self._exemplars, self._shape = device, exemplars, shape
        self.precision, self.stream = precision, device.stream()
        self._logger = Logger()
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._error("TensorRT refuses the plan")
        self._engine = engine
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise self._error("TensorRT can't run the plan")
        self._context = context
        self._scratch: DeviceBuffer = device.allocate(engine.device_memory_size_v2)
        context.set_device_memory(self._scratch.address, self._scratch.nbytes)
        for name, address in (
            ("exemplar_hidden", exemplars.hidden.address),
            ("exemplar_labels", exemplars.labels.address),
        ):
            self._set_address(name, address)
        self._set_shape("exemplar_hidden", (shape.exemplars, shape.feature_size))
        self._set_shape("exemplar_labels", (shape.exemplars,))
        self.resize(batch_size)

    def resize(self, batch_size: int) -> None:
        """See `cuda.engine.Engine.resize`."""
        D, P = self._shape.patches, self._shape.patch_size
        self._set_shape("patches", (batch_size * D, P, P, 3))
        if missing := self._context.infer_shapes():
            raise BackendError(
                f"the plan wants inputs that this bundle has not: {', '.join(missing)}; compile it again"
            )
        self.batch_size = batch_size

    def enqueue(self, tensors: Tensors) -> None:
        """See `cuda.engine.Engine.enqueue`."""
        for name, address in zip(Tensors._fields, tensors, strict=True):
            self._set_address(name, address)
        if not self._context.execute_async_v3(self.stream.handle):
            raise self._error(f"TensorRT failed on {self._device.name}")

    def close(self) -> None:
        """See `cuda.engine.Engine.close`."""
        self.stream.synchronize()
        self._scratch.free()
        del self._context, self._engine, self._runtime

    def _set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise BackendError(f"the plan has no tensor {name}; compile it again ({self._logger.reasons()})")

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(name, shape):
            raise BackendError(
                f"the plan takes no {name} {list(shape)}: use a smaller --batch-size, or compile it again"
            )

    def _error(self, what: str) -> BackendError:
        kind = DeviceMemoryError if self._logger.out_of_memory else BackendError
        return kind(f"{what}: {self._logger.reasons()}")
