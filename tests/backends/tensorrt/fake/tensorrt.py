"""A stand-in for TensorRT, as far as pscr-engine uses it: its "plans" name an ONNX file, which ONNX Runtime runs.

`test_contract.py` holds every name and parameter in it against the real bindings. Tests steer it by the
environment: FAKE_TENSORRT_VERSION, and FAKE_TENSORRT=off_by_one|no_plan|no_memory|unreadable|refuses|slow.
"""

import ctypes
import enum
import json
import os
import time

import numpy as np

__version__ = os.environ.get("FAKE_TENSORRT_VERSION", "10.13.3.9")
STEPS = []  # recorded work that the driver calls: a reference keeps it alive
MODE = os.environ.get("FAKE_TENSORRT", "")


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32 = 1


class ExecutionContextAllocationStrategy(enum.Enum):
    USER_MANAGED = 2


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self):
        pass


class IProgressMonitor:
    def __init__(self):
        pass


class IHostMemory:
    def __init__(self, data):
        self._data = data

    def __bytes__(self):
        return self._data


class ITimingCache:
    def __init__(self, data):
        self._data = data

    def serialize(self):
        return IHostMemory(self._data + b"measured\n")


class IOptimizationProfile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, input, min, opt, max):
        assert len(min) == len(opt) == len(max)
        assert all(low <= typical <= high for low, typical, high in zip(min, opt, max, strict=True)), input
        self.shapes[input] = [list(min), list(opt), list(max)]


class IBuilderConfig:
    def __init__(self):
        self.profiles, self.progress_monitor, self.flags = [], None, {BuilderFlag.TF32}
        self.builder_optimization_level, self.max_aux_streams = 3, -1

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1


class INetworkDefinition:
    def __init__(self):
        self.path = None


class Builder:
    def __init__(self, logger):
        self.logger = logger

    def create_network(self, flags=0):
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 3)
        for step in range(3 if MODE != "slow" else 1000):
            time.sleep(0.01)
            if not monitor.step_complete("Building", step):
                return None
        monitor.phase_finish("Building")
        if MODE in ("no_plan", "no_memory"):
            text = "no kernel was found" if MODE == "no_plan" else "Cuda Runtime (out of memory)"
            self.logger.log(ILogger.Severity.ERROR, text)
            return None
        (profile,) = config.profiles
        assert BuilderFlag.TF32 not in config.flags
        return IHostMemory(json.dumps({"graph": network.path, "profile": profile.shapes}).encode())


class OnnxParser:
    def __init__(self, network, logger):
        self.network, self.num_errors = network, 0

    def parse_from_file(self, model):
        self.network.path = model
        if MODE == "unreadable":
            self.num_errors = 1
            return False
        return True

    def get_error(self, index):
        return ParserError()


class ParserError:
    def node_name(self):
        return "conv_1"

    def node_operator(self):
        return "Conv"

    def desc(self):
        return "no such thing"


class Runtime:
    def __init__(self, logger):
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        if MODE == "refuses":
            self.logger.log(ILogger.Severity.ERROR, "the plan is of another platform")
            return None
        return ICudaEngine(json.loads(serialized_engine))


class ICudaEngine:
    device_memory_size_v2 = 4096

    def __init__(self, plan):
        self.plan = plan

    def create_execution_context(self, strategy):
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self.plan)


class IExecutionContext:
    def __init__(self, plan):
        import onnxruntime

        self.profile, self.addresses, self.shapes = plan["profile"], {}, {}
        self.session = onnxruntime.InferenceSession(plan["graph"], providers=["CPUExecutionProvider"])

    def set_device_memory(self, memory, size):
        assert memory % 256 == 0
        assert size == ICudaEngine.device_memory_size_v2
        self.memory = memory

    def set_input_shape(self, name, shape):
        low, _, high = self.profile[name]
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, memory):
        assert memory % 256 == 0, "TensorRT wants aligned addresses"
        self.addresses[name] = memory
        return name in {value.name for value in (*self.session.get_inputs(), *self.session.get_outputs())}

    def infer_shapes(self):
        return sorted(set(self.profile) - set(self.shapes))

    def execute_async_v3(self, stream_handle):
        assert stream_handle > 0, "on the default stream TensorRT waits for all others"
        addresses = dict(self.addresses)
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.pretend_is_capturing(ctypes.c_void_p(stream_handle)):
            step = ctypes.CFUNCTYPE(None)(lambda: self._compute(addresses))
            STEPS.append(step)
            driver.pretend_record(step)
            return True
        self._compute(addresses)
        return True

    def _compute(self, addresses):
        feeds = {}
        for name, shape in self.shapes.items():
            kind = np.uint8 if name == "patches" else np.float32
            nbytes = int(np.prod(shape)) * np.dtype(kind).itemsize
            feeds[name] = np.frombuffer(ctypes.string_at(addresses[name], nbytes), kind).reshape(shape)
        names = ["score", "exemplar_scores", "features"]
        for name, value in zip(names, self.session.run(names, feeds), strict=True):
            value = value + np.float32(MODE == "off_by_one")
            ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)
