"""Score a manifest on this host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..backends.devices import resolve_devices
from ..backends.registry import check_backend
from ..config import ScoreConfig
from ..errors import is_on_command_line
from ..host import usable_cpus
from .image_folders import identity_of
from .ledger import Ledger
from .local_pool import Pool
from .progress import Report, RunProgress
from .run import Job, RunResult, Task, run_manifest
from .run_record import has_stamps
from .worker import Worker, WorkerSetup, expected


def run(config: ScoreConfig, report: Report = lambda snapshot: None) -> RunResult:
    """Score a manifest with one worker per device: in this process, or in one each if there are several.

    Raises:
        UsageError: a device that this host lacks.
        PscrError: see `runners.run.run_manifest`.
    """
    return run_manifest(config, _Local(resolve_devices(config.devices)), report)


@dataclass(slots=True)
class _Local:
    """The runner of this host: a worker in this process, or one process per device if there are several."""

    devices: Sequence[str]
    _worker: Worker | None = None

    @property
    def described(self) -> Sequence[str]:
        return self.devices

    def prepare(self, job: Job) -> None:
        if job.config.columns.allow_http:
            from ..stores import web as web  # says what is missing
        for device in self.devices:
            for model in job.models.all:
                check_backend(model.bundle, backend=job.config.backend, device=device, precision=model.precision)
        if len(self.devices) == 1:
            self._worker = Worker.open(_setups(job, self.devices)[0], job.models)

    def score(self, task: Task) -> None:
        setups = _setups(task.job, self.devices, stamps=has_stamps(task.directory.run))
        if len(setups) == 1:
            worker = self._worker or Worker.open(setups[0], task.job.models)
            task.progress.ready(0, setups[0].device)
            task.progress.begin(worker.backend)
            _score_here(worker, task.ledger, task.progress)
        else:
            Pool(setups, task.ledger, task.progress, task.directory.lock_descriptors).run()


def _setups(job: Job, devices: Sequence[str], *, stamps: bool = True) -> list[WorkerSetup]:
    """Make the setups, one per device; workers on the CPU share its cores evenly."""
    threads = None if len(devices) == 1 else max(1, usable_cpus() // len(devices))
    known = None
    if job.known is not None:
        known = job.known.unindexed() if len(devices) == 1 else job.known.indexed()
    folder, told = identity_of(job.manifest.folder), is_on_command_line()
    return [
        WorkerSetup(job.config, job.manifest, device, expected(job.models), folder, threads, told, known, stamps)
        for device in devices
    ]


def _score_here(worker: Worker, ledger: Ledger, progress: RunProgress) -> None:
    """Score every chunk with a single worker, in this process."""
    worker.moved = lambda: progress.moved(0, Counter(worker.status), worker.stages)
    for done in worker.run(ledger.chunks()):
        ledger.done(done)
        progress.committed(0, done.status, worker.stages)
