"""A run from its settings to `_SUCCESS`; who scores its chunks is the runner's business."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..backends.registry import choose_precision
from ..bundle import Bundle
from ..config import ScoreConfig
from ..errors import TooManyFailuresError
from ..manifests import Manifest, open_manifest
from ..models import choose_bundle
from ..output.run_directory import SUCCESS_FILE, RunDirectory
from ..output.shard import WHOLE, Shard
from ..records import Status
from ..stores.uri import Place
from .ledger import Ledger
from .progress import Progress, RunProgress, Snapshot
from .run_record import _run_facts, _throughput

log = logging.getLogger("pscr_engine")


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run has done.

    Args:
        out: folder of the parts.
        rows: rows of the manifest, all of them in the parts.
        status: status → number of rows.
        scored: rows that this run worked on; less than `rows` if it went on with an earlier one.
        seconds: time from when the first worker was ready to the last part.
        shard: which share of a run this was.
        complete: whether all parts of all shards are there. If not, `rows` and `status` are those scored here.
        parts: how many parts are there.
    """

    out: Place
    rows: int
    status: dict[str, int]
    scored: int
    seconds: float
    shard: Shard = WHOLE
    complete: bool = True
    parts: int = 0

    @property
    def failed(self) -> int:
        """Rows without a score."""
        return self.rows - self.status.get(Status.OK.value, 0)


@dataclass(frozen=True, slots=True)
class Task:
    """What a runner is to have done.

    Args:
        config: of the run.
        manifest: the list of images, opened.
        bundle: the model, opened.
        precision: which of its graphs.
        ledger: the chunks that are left.
        progression: is told what happens.
        directory: where the parts go; this process has claimed it.
    """

    config: ScoreConfig
    manifest: Manifest
    bundle: Bundle
    precision: str
    ledger: Ledger
    progression: RunProgress
    directory: RunDirectory


class Runner(Protocol):
    """Has chunks scored."""

    @property
    def devices(self) -> Sequence[str]:
        """What it scores on; the precision follows them."""
        ...

    @property
    def described(self) -> Sequence[str]:
        """The devices, for `_SUCCESS`."""
        ...

    def score(self, task: Task) -> None:
        """Have every chunk of the ledger scored, and tell the progression when the first worker is ready."""
        ...


def run_manifest(config: ScoreConfig, runner: Runner, progress: Progress) -> RunResult:
    """Score every row of a manifest into `config.out`, or go on with a run that is there, whichever runner it had.

    Raises:
        UsageError: the manifest, the settings or the output folder are not usable.
        BundleError, BackendError, MissingDependencyError: the bundle can't be run here.
        WorkerError: workers die again and again.
        TooManyFailuresError: the run is complete, but too many images failed.
    """
    choice = choose_bundle(config.bundle)
    config = replace(config, bundle=choice)  # decided once: workers open this one, wherever they are
    bundle = choice.open()
    manifest = open_manifest(config.manifest, config.columns)
    precision = choose_precision(bundle, config.precision, runner.devices)
    log.info(
        "bundle %s: %s, %s, %d exemplars", choice.describe(), bundle.info.backbone, precision, bundle.exemplars.count
    )
    chunk_rows = config.rows_per_chunk(manifest.num_rows)
    facts = _run_facts(config, choice, bundle, manifest, precision, chunk_rows)
    with closing(RunDirectory.open(config.out, facts, overwrite=config.overwrite, shard=config.shard)) as directory:
        already = directory.success()
        if already is not None and not config.retry_failed:
            log.info("%s is complete already (%s is there)", config.out, SUCCESS_FILE)
            rows = already["rows"]
            progress(replace(RunProgress(rows, rows, progress).snapshot(final=True), seconds=0.0))
            return _check_failures(config, RunResult(config.out, rows, already["status"], 0, 0.0, config.shard))
        ledger, before = _plan(directory, manifest, chunk_rows, retry_failed=config.retry_failed)

        def report(snapshot: Snapshot) -> None:
            directory.check()
            progress(snapshot)

        total = None if manifest.num_rows is None else config.shard.rows(manifest.num_rows, chunk_rows)
        progression = RunProgress(total, before, report)
        directory.clear_success()
        runner.score(Task(config, manifest, bundle, precision, ledger, progression, directory))
        manifest.check_unchanged()
        progression.total = progression.snapshot().rows
        snapshot = progression.snapshot(final=True)
        rows = ledger.rows if config.shard == WHOLE else rows_if_complete(directory, manifest, chunk_rows)
        if rows is None:
            there = len(directory.parts.indices())
            progress(snapshot)
            status = {name: count for name, count in snapshot.status.items() if count}
            result = RunResult(
                config.out, snapshot.scored, status, snapshot.scored, snapshot.seconds, config.shard, False, there
            )
            return _check_failures(config, result)
        facts = _throughput(config, snapshot, progression.startup_seconds, runner.described)
        content = directory.finish(rows, math.ceil(rows / chunk_rows), facts)
        progress(snapshot)
    result = RunResult(config.out, content["rows"], content["status"], snapshot.scored, snapshot.seconds, config.shard)
    return _check_failures(config, result)


def rows_if_complete(directory: RunDirectory, manifest: Manifest, chunk_rows: int) -> int | None:
    """How many rows the manifest has, if every one of them is in a part, whoever wrote it; else None.

    Reads the manifest only where nothing else tells that it ends with a part that is full.
    """
    done = directory.parts.indices()
    if done != list(range(len(done))):
        return None
    rows = (len(done) - 1) * chunk_rows + directory.parts.rows(done[-1]) if done else 0
    if rows < len(done) * chunk_rows or (manifest.num_rows is not None and rows >= manifest.num_rows):
        return rows
    return rows if next(manifest.rows(rows), None) is None else None


def _plan(directory: RunDirectory, manifest: Manifest, chunk_rows: int, *, retry_failed: bool) -> tuple[Ledger, int]:
    """What is left to do here, and the number of rows that are done."""
    done, shard = directory.parts.indices(), directory.shard
    again: dict[int, NDArray[np.bool_]] = {}
    if retry_failed:
        masks = (
            (index, np.array([status != Status.OK for status in statuses]))
            for index, statuses in directory.parts.statuses()
        )
        again = {index: mask for index, mask in masks if mask.any()}
    ledger = Ledger(chunk_rows, frozenset(done), again, manifest.num_rows, shard=shard)
    if not done:
        return ledger, 0
    ours = [index for index in done if shard.owns(index)]
    if ours:
        log.info("going on with %s: %d chunks are done", directory.path, len(ours))
    ledger.count_parts(last := directory.parts.rows(done[-1]))
    short = chunk_rows - last if shard.owns(done[-1]) else 0
    return ledger, len(ours) * chunk_rows - short - sum(int(mask.sum()) for mask in again.values())


def _check_failures(config: ScoreConfig, result: RunResult) -> RunResult:
    if result.rows and result.failed / result.rows > config.max_failure_rate:
        raise TooManyFailuresError(
            f"{result.failed} of {result.rows} images failed ({result.failed / result.rows:.1%}), more than "
            f"--max-failure-rate {config.max_failure_rate:g} allows; see the status and error columns in {config.out}"
        )
    return result
