"""The engine that runs ONNX Runtime's CUDA provider, on this package's own buffers and stream."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..cuda.device import Device, DeviceMemoryError, Stream
from ..cuda.engine import Shape, Tensors
from ..cuda.exemplars import ResidentExemplars
from ..cuda.libraries import FOR_ONNXRUNTIME, load_libraries
from ..errors import BackendError, MissingDependencyError, UsageError, one_line

DEFAULT_BATCH_SIZE = 64
SETTINGS_VARIABLE = "PSCR_ENGINE_ORT_CUDA"
"""Environment variable with settings of the CUDA provider in place of ours: "fuse_conv_bias=1,prefer_nhwc=0"."""
_OUT_OF_MEMORY = ("failed to allocate memory", "out of memory", "alloc_failed", "cuda failure 2:")


class Provider(NamedTuple):
    """ONNX Runtime's names of the execution provider that a session uses and of that provider's memory."""

    name: str = "CUDAExecutionProvider"
    memory: str = "cuda"


def settings_from(text: str) -> dict[str, str]:
    """Read settings of the CUDA provider, "name=value,name=value".

    Raises:
        UsageError: the text is not of that form, or sets what the engine itself must decide.
    """
    settings = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.strip().partition("=")
        if not equals or name in ("device_id", "user_compute_stream", "has_user_compute_stream"):
            raise UsageError(
                f"{SETTINGS_VARIABLE}={text!r}: {part!r} is no setting; write fuse_conv_bias=1,prefer_nhwc=0"
            )
        settings[name] = value
    return settings


class OnnxRuntimeEngine:
    """An `Engine` with one ONNX Runtime session for batches of one size, which searches the best algorithms once.

    Args:
        graph: the .onnx file.
        device: the GPU, current in this thread.
        exemplars: the exemplar cache on the device.
        shape: sizes of the graph's tensors.
        precision: the graph's.
        batch_size: B.
        provider: where it computes; None for the CUDA provider.

    Raises:
        MissingDependencyError: onnxruntime-gpu is not installed.
        BackendError: it does not start on the GPU, or not all of the graph would run there.
    """

    name = "onnxruntime"

    def __init__(
        self,
        graph: Path,
        device: Device,
        exemplars: ResidentExemplars,
        shape: Shape,
        *,
        precision: str,
        batch_size: int = DEFAULT_BATCH_SIZE,
        provider: Provider | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError("onnxruntime-gpu", "scoring on a GPU", "gpu") from error
        self._ort, self._provider = onnxruntime, provider or Provider()
        self.version: str = onnxruntime.__version__
        self._graph, self._device, self._exemplars, self._shape = graph, device, exemplars, shape
        self.precision = precision
        self.streams: tuple[Stream, ...] = (device.stream(),)
        self._require_provider()
        self.resize(batch_size)

    def _require_provider(self) -> None:
        if self._provider.name not in self._ort.get_available_providers():
            raise BackendError(
                "the installed onnxruntime is the one for CPUs: pip uninstall onnxruntime, "
                "then pip install 'pscr-engine[gpu]'"
            )
        if self._provider.memory == "cuda":
            load_libraries(FOR_ONNXRUNTIME)
            if hasattr(self._ort, "preload_dlls"):
                with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                    self._ort.preload_dlls()
        if self.precision == "fp32":
            # Some convolutions don't heed the session's `use_tf32`.
            os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

    def resize(self, batch_size: int) -> None:
        """Change the batch size, by making a new session for it."""
        self._bindings: dict[Tensors, Any] = {}
        self._session: Any = None  # frees its memory before the next one takes any
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        # With all sizes known, shapes are computed beforehand and nothing is left for the processor to do.
        D = self._shape.patches
        for name, size in ((f"{D}*B", D * batch_size), (f"B*{D}", D * batch_size), ("B", batch_size)):
            options.add_free_dimension_override_by_name(name, size)
        options.add_free_dimension_override_by_name("M", self._shape.exemplars)
        settings: dict[str, str] = {}
        if self._provider.memory == "cuda":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            settings = self._settings()
        try:
            self._session = self._ort.InferenceSession(
                str(self._graph), options, providers=[(self._provider.name, settings)], enable_fallback=0
            )
        except Exception as error:
            raise self._error(f"ONNX Runtime can't run {self._graph} on {self._device.name}", error) from error
        if self._provider.name not in self._session.get_providers():
            raise BackendError(f"ONNX Runtime can't use {self._device.name}; pscr-engine doctor says what it needs")
        self.batch_size = batch_size
        self._run_options = self._ort.RunOptions()
        # Whoever needs the result waits for an event of the stream.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def _settings(self) -> dict[str, str]:
        """Return the CUDA provider's settings, chosen for convolutions in FP16 with one batch size.

        "prefer_nhwc" and "EXHAUSTIVE" with the largest workspace suit those. "fuse_conv_bias", which has cuDNN add the
        bias and apply the activation in the convolution's kernel, is not set: whether it gains, and on which card, has
        not been measured yet (`benchmarks.gpu_acceptance`, section engines).
        """
        chosen = {
            "device_id": str(self._device.index),
            "has_user_compute_stream": "1",
            "user_compute_stream": str(self.streams[0].handle),
            "do_copy_in_default_stream": "1",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "cudnn_conv_use_max_workspace": "1",
            "prefer_nhwc": "1",
            "use_tf32": "0" if self.precision == "fp32" else "1",
            "arena_extend_strategy": "kSameAsRequested",
        }
        return {**chosen, **settings_from(os.environ.get(SETTINGS_VARIABLE, ""))}

    def enqueue(self, tensors: Tensors, lane: int = 0) -> None:
        """Enqueue the graph for one batch."""
        binding = self._bindings.get(tensors)
        try:
            if binding is None:
                binding = self._bindings[tensors] = self._bind(tensors)
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:
            raise self._error(f"ONNX Runtime failed on {self._device.name}", error) from error

    def _bind(self, tensors: Tensors) -> Any:
        """Bind the tensors of a slot to the graph's inputs and outputs; this is done once per slot."""
        B, (D, P, C, M) = self.batch_size, self._shape
        where = (self._provider.memory, self._device.index if self._provider.memory == "cuda" else 0)
        binding = self._session.io_binding()
        binding.bind_input("patches", *where, np.uint8, (B * D, P, P, 3), tensors.patches)
        binding.bind_input("exemplar_hidden", *where, np.float32, (M, C), self._exemplars.hidden.address)
        binding.bind_input("exemplar_labels", *where, np.float32, (M,), self._exemplars.labels.address)
        binding.bind_output("score", *where, np.float32, (B,), tensors.score)
        binding.bind_output("exemplar_scores", *where, np.float32, (B, M), tensors.exemplar_scores)
        binding.bind_output("features", *where, np.float32, (B, C), tensors.features)
        return binding

    def _error(self, what: str, error: Exception) -> BackendError:
        text = one_line(error, 300)
        if any(sign in text.lower() for sign in _OUT_OF_MEMORY):
            free, total = self._device.memory()
            return DeviceMemoryError(
                f"{self._device.name} is out of memory ({free / 1e9:.1f} of {total / 1e9:.1f} GB free)"
            )
        return BackendError(f"{what}: {text}")

    def close(self) -> None:
        """Give the session's memory back."""
        self._bindings.clear()
        self._session = None
