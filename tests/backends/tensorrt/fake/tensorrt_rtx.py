"""A stand-in for TensorRT for RTX: what it has beside the stand-in for TensorRT.

`test_contract.py` holds every name and parameter in it against the real bindings. Tests steer it by the
environment: FAKE_TENSORRT as there, or unsupported; FAKE_TENSORRT_RTX_VERSION.
"""

import enum
import json
import os

import tensorrt
from tensorrt import *  # noqa: F403
from tensorrt import MODE, ExecutionContextAllocationStrategy, ILogger

__version__ = os.environ.get("FAKE_TENSORRT_RTX_VERSION", "1.7.1.116")


class ComputeCapability(enum.Enum):
    SM80 = 80
    SM89 = 89
    SM120 = 120


class EngineValidity(enum.Enum):
    VALID = 0
    SUBOPTIMAL = 1
    INVALID = 2


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1


class IBuilderConfig(tensorrt.IBuilderConfig):
    num_compute_capabilities = 0

    def set_compute_capability(self, compute_capability, index):
        assert index < self.num_compute_capabilities
        return True


class Builder(tensorrt.Builder):
    def create_builder_config(self):
        return IBuilderConfig()


class IRuntimeCache:
    def __init__(self):
        self.kernels = b""

    def serialize(self):
        return tensorrt.IHostMemory(self.kernels)

    def deserialize(self, blob):
        known = blob.startswith(__version__.encode())
        self.kernels = blob if known else b""
        return known


class IRuntimeConfig:
    cuda_graph_strategy = None
    dynamic_shapes_kernel_specialization_strategy = None

    def create_runtime_cache(self):
        return IRuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy):
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED


class ICudaEngine(tensorrt.ICudaEngine):
    def create_runtime_config(self):
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config):
        assert runtime_config.dynamic_shapes_kernel_specialization_strategy is (
            DynamicShapesKernelSpecializationStrategy.EAGER
        )
        if not runtime_config.cache.kernels:  # compiled for this GPU
            runtime_config.cache.kernels = __version__.encode() + b" kernels"
        return tensorrt.IExecutionContext(self.plan)


class Runtime(tensorrt.Runtime):
    def get_engine_validity(self, buffer):
        if MODE == "unsupported":
            self.logger.log(ILogger.Severity.ERROR, "need compute capability 80 or above")
            return EngineValidity.INVALID, 3
        return EngineValidity.VALID, 0

    def deserialize_cuda_engine(self, serialized_engine):
        engine = super().deserialize_cuda_engine(serialized_engine)
        return engine and ICudaEngine(json.loads(serialized_engine))
