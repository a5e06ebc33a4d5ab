"""Score a manifest on a Ray cluster: one actor per GPU, or per group of cores, wherever there is room."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ...backends.registry import check_backend
from ...config import RayOptions, ScoreConfig
from ...errors import MissingDependencyError, UsageError, is_on_command_line, one_line, option
from ...host import usable_cpus
from ..image_folders import identity_of
from ..ledger import Chunk
from ..progress import Report
from ..run import Job, RunResult, Task, run_manifest
from ..run_record import has_stamps
from ..worker import WorkerSetup, expected
from .actor import ActorSetup, ScoringActor
from .score_batch import ScoreBatch

__all__ = ["ScoreBatch", "run"]

_CALLS_AT_ACTOR = 8
_CONNECT_SECONDS = 10.0
_LISTING_SECONDS = 65.0


def run(config: ScoreConfig, report: Report = lambda snapshot: None) -> RunResult:
    """Score a manifest with workers that Ray places. This process hands out chunks and holds the output folder.

    Raises:
        MissingDependencyError: Ray is not installed.
        UsageError: there is no such cluster, or it can't be told what a worker is to have.
        PscrError: see `runners.run.run_manifest`.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("ray", option("--runner", "ray"), "ray") from error
    options = config.ray
    if config.devices == "cpu":
        options = replace(options, gpus_per_worker=0)
    with _connected(ray, options.address):
        return run_manifest(config, _Ray(ray, _placement(ray, options)), report)


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Connect to a cluster for the time of a run; one that this process is connected to already is left as it is."""
    if ray.is_initialized():
        yield
        return
    if address == "auto":
        address = RayOptions(os.environ.get("RAY_ADDRESS") or "auto").address
    handler = signal.getsignal(signal.SIGTERM)  # Ray puts its own in its place
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
            ray.init(address="local", num_cpus=usable_cpus(), include_dashboard=False, **quiet)
        else:
            if address != "auto":
                _require_listener(address)
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        if address == "auto" and isinstance(error, ConnectionError):
            raise UsageError(
                f"{option('--runner', 'ray')}: no Ray cluster found; start one (ray start --head), name one with "
                f"{option('--ray-address')} "
                f"HOST:PORT or RAY_ADDRESS, or use {option('--ray-address', 'local')}"
            ) from error
        raise UsageError(
            f"{option('--ray-address')} {address}: can't use that cluster ({one_line(error, 300)})"
        ) from error
    finally:
        _restore(handler)
    try:
        yield
    finally:
        ray.shutdown()


def _restore(handler: Any) -> None:
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _require_listener(address: str) -> None:
    """Raise OSError or ValueError if nobody listens there: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


@dataclass(frozen=True, slots=True)
class _Placement:
    """What each worker is given.

    Args:
        cpus: cores.
        gpus: 0 or 1.
        workers: how many there are to be; None for as many as fit.
    """

    cpus: int
    gpus: int
    workers: int | None

    @property
    def device(self) -> str:
        return "cuda:0" if self.gpus else "cpu"  # Ray shows each actor its own GPU alone

    def fit(self, resources: dict[str, float]) -> int:
        """Return how many workers a node's resources are enough for."""
        by_cpu = int(resources.get("CPU", 0) // self.cpus)
        return min(by_cpu, int(resources.get("GPU", 0))) if self.gpus else by_cpu

    def __str__(self) -> str:
        cores = f"{self.cpus} free CPU{'s' if self.cpus > 1 else ''}"
        return f"a node with {cores} and a free GPU" if self.gpus else f"a node with {cores}"


def _nodes(ray: Any) -> list[dict[str, float]]:
    """Return the resources of each node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _placement(ray: Any, options: RayOptions) -> _Placement:
    """Fill in what the cluster has where the options say "auto"."""
    nodes = _nodes(ray)
    gpus = options.gpus_per_worker
    if gpus is None:
        gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
    cpus = options.cpus_per_worker
    if cpus is None:
        fitting = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
        if not fitting:
            raise UsageError(
                f"{option('--runner', 'ray')}: no node has {'CPUs and a GPU' if gpus else 'CPUs'} yet, so say how "
                f"many CPUs a worker "
                f"is to have with {option('--cpus-per-worker')}"
            )
        cpus = min(max(1, int(node["CPU"] // (node["GPU"] if gpus else 1))) for node in fitting)
    return _Placement(cpus, gpus, options.workers)


@dataclass(slots=True)
class _Ray:
    """The runner of a Ray cluster."""

    ray: Any
    placement: _Placement
    most: int = 0

    @property
    def devices(self) -> Sequence[str]:
        return (self.placement.device,)

    @property
    def described(self) -> Sequence[str]:
        return (f"ray: {'gpu' if self.placement.gpus else 'cpu'} × {self.most}",)

    def prepare(self, job: Job) -> None:
        model = job.models.only
        check_backend(model.bundle, backend=job.config.backend, device=self.placement.device, precision=model.precision)

    def score(self, task: Task) -> None:
        from .pool import RayPool

        task.directory.begin()  # actors see by `_run.json` whether their folder is this one
        job = task.job
        setup = WorkerSetup(
            job.config,
            job.manifest,
            self.placement.device,
            expected(job.models),
            identity_of(job.manifest.folder),
            self.placement.cpus,
            is_on_command_line(),
            None if job.known is None else job.known.unindexed(),
            has_stamps(task.directory.run),
        )
        actor = ActorSetup(setup, task.directory.run, os.getcwd())  # noqa: PTH109 - text
        pool = RayPool(_Fleet(self.ray, self.placement, actor), task.ledger, task.progress)
        pool.run()
        self.most = pool.most
        _wait_for_parts(task)


def _wait_for_parts(task: Task) -> None:
    """Wait until this host sees all parts that others have written: NFS may show a folder as it was a minute ago."""
    parts = -(-task.ledger.rows // task.ledger.chunk_rows)
    deadline = time.monotonic() + _LISTING_SECONDS
    while len(task.directory.parts.indices()) < parts and time.monotonic() < deadline:
        time.sleep(0.5)


class _Fleet:
    """Starts the actors, all of one kind."""

    def __init__(self, ray: Any, placement: _Placement, setup: ActorSetup) -> None:
        self._ray, self._placement = ray, placement
        self._setup = ray.put(setup)  # once, however many actors read it
        self._actor = ray.remote(
            num_cpus=placement.cpus,
            num_gpus=placement.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=_CALLS_AT_ACTOR,
        )(ScoringActor)
        self.needs = str(placement)

    def wanted(self) -> int:
        if self._placement.workers is not None:
            return self._placement.workers
        return sum(map(self._placement.fit, _nodes(self._ray)))

    def start(self) -> _Actor:
        return _Actor(self._ray, self._actor.remote(self._setup))


class _Actor:
    """Calls one actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def open(self) -> Any:
        return self._actor.open.remote()

    def score(self, chunk: Chunk) -> Any:
        return self._actor.score.remote(chunk)

    def progress(self) -> Any:
        return self._actor.progress.remote()

    def kill(self) -> None:
        self._ray.kill(self._actor)

    def node_is_gone(self, node_id: str, error: Exception) -> bool:
        if "its node has died" in str(error):
            return True
        return any(node["NodeID"] == node_id and not node["Alive"] for node in self._ray.nodes())
