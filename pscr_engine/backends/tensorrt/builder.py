"""Build a plan from a graph, with TensorRT 10.13 to 11 or TensorRT for RTX."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, SupportsInt

from ...atomic import atomic_file
from ...cuda.device import Device, DeviceMemoryError
from ...cuda.engine import Shape
from ...errors import BackendError, option
from ...progress import Progress, silent
from .library import loaded_tensorrt
from .logger import LOGGER

if TYPE_CHECKING:
    import tensorrt as trt
else:
    trt = loaded_tensorrt()


class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # Any, where TensorRT is not installed
    """Reports a build's progress, and stops the build when asked."""

    def __init__(self, progress: Progress) -> None:
        trt.IProgressMonitor.__init__(self)
        self._progress, self._phases = progress, dict[str, int]()
        self.cancelled = threading.Event()

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: SupportsInt) -> None:
        self._phases[phase_name] = int(num_steps)
        if parent_phase is None:
            self._progress(phase_name, 0, int(num_steps))

    def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
        self._progress(phase_name, int(step) + 1, self._phases.get(phase_name))
        return not self.cancelled.is_set()

    def phase_finish(self, phase_name: str) -> None:
        self._phases.pop(phase_name, None)


@dataclass(frozen=True, slots=True)
class Build:
    """What to compile, and for what. The plan computes in the graph's own types: an FP16 graph makes an FP16 plan.

    Args:
        graph: the .onnx file.
        shape: sizes of the graph's tensors.
        batch_size: B that kernels are chosen for, and the largest that the plan takes.
        max_exemplars: M at most.
        optimization_level: 0 (quickest build) to 5 (fastest plan).
        timing_cache: file with measurements of earlier builds, which is brought up to date; None without a GPU.
        targets: GPUs that TensorRT for RTX builds for, see `rtx.set_targets`; None for TensorRT.
    """

    graph: Path
    shape: Shape
    batch_size: int
    max_exemplars: int
    optimization_level: int
    timing_cache: Path | None = None
    targets: str | None = None


def build_plan(wanted: Build, device: Device | None = None, progress: Progress = silent) -> bytes:
    """Compile a graph into a plan, and return the plan.

    Args:
        wanted: what to compile.
        device: the GPU to measure kernels on; None to build without one, which TensorRT for RTX can.
        progress: is called with the phase, the steps done in it, and how many there are, if known.

    Raises:
        DeviceMemoryError: the GPU has too little memory for the build.
        BackendError: TensorRT refuses the graph.
        UsageError: TensorRT for RTX doesn't know a target.
        KeyboardInterrupt: the user has stopped the build.
    """
    monitor, outcome = _Monitor(progress), list[bytes | BaseException]()

    def build() -> None:
        try:
            with nullcontext() if device is None else device.current():
                outcome.append(_build(wanted, monitor))
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            outcome.append(error)

    # In a thread of its own, since Ctrl-C reaches Python only between two of the main thread's instructions.
    thread = threading.Thread(target=build, name="tensorrt")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except BaseException:
        monitor.cancelled.set()
        thread.join()
        raise
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _build(wanted: Build, monitor: _Monitor) -> bytes:
    builder = trt.Builder(LOGGER)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(network, wanted.graph)
    config = builder.create_builder_config()
    config.builder_optimization_level = wanted.optimization_level
    config.max_aux_streams = 0  # engines use their own streams
    config.clear_flag(trt.BuilderFlag.TF32)  # an FP32 graph means FP32
    config.progress_monitor = monitor
    if wanted.targets is not None:
        from .rtx import set_targets

        set_targets(config, wanted.targets)
    timing_cache = wanted.timing_cache
    if timing_cache is not None:
        cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.exists() else b"")
        config.set_timing_cache(cache, False)
    config.add_optimization_profile(_profile(builder, wanted))
    plan = builder.build_serialized_network(network, config)
    if monitor.cancelled.is_set():
        raise KeyboardInterrupt
    if plan is None:
        if LOGGER.out_of_memory:
            raise DeviceMemoryError(
                f"the GPU has too little memory to build the plan; use a smaller {option('--batch-size')}"
            )
        raise BackendError(f"{wanted.graph}: TensorRT can't build a plan: {LOGGER.reasons()}")
    if timing_cache is not None:
        measured = config.get_timing_cache().serialize()
        timing_cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(timing_cache) as file:
            file.write_bytes(bytes(measured))
    return bytes(plan)


def _parse(network: trt.INetworkDefinition, graph: Path) -> None:
    """Read the graph into the network; the error names the nodes that TensorRT refuses."""
    parser = trt.OnnxParser(network, LOGGER)
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        texts = "; ".join(f"node {error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors)
        raise BackendError(f"{graph}: TensorRT can't read it: {texts or LOGGER.reasons()}")


def _profile(builder: trt.Builder, wanted: Build) -> trt.IOptimizationProfile:
    profile = builder.create_optimization_profile()
    D, P, C, M = wanted.shape
    largest, most = (wanted.batch_size * D, P, P, 3), wanted.max_exemplars
    profile.set_shape("patches", (D, P, P, 3), largest, largest)
    profile.set_shape("exemplar_hidden", (1, C), (M, C), (most, C))
    profile.set_shape("exemplar_labels", (1,), (M,), (most,))
    return profile
