"""One run, from its settings to `_SUCCESS`, whichever runner has the chunks scored."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import ScoreConfig
from ..errors import InUseError, TooManyFailuresError, option
from ..manifests import Manifest, open_manifest
from ..metrics import Figures, Meter, metered
from ..output.parts import Parts
from ..output.processes import Share, shares_of
from ..output.run_directory import RunDirectory
from ..output.run_identity import SUCCESS_FILE
from ..output.shard import WHOLE, Shard
from ..records import Status
from ..stores.uri import Place
from .early import count_decisions
from .known import KnownRuns, count_taken
from .ledger import Ledger
from .open_models import Models, choose_models, open_models
from .pilot import threshold_of
from .process_share import ProcessShare
from .progress import Report, RunProgress, Snapshot
from .run_record import has_stamps, run_facts, run_identity, throughput_facts
from .worker import part_schema

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
        processes: what each process did for the run, of a complete one: see `pscr_engine.output.processes`.
        taken_over: how many rows of a complete run are taken over from earlier ones.
        decisions: of a complete run that decides: how many images are kept and dropped, and patches per image.
    """

    out: Place
    rows: int
    status: dict[str, int]
    scored: int
    seconds: float
    shard: Shard = WHOLE
    complete: bool = True
    parts: int = 0
    processes: Sequence[Share] = ()
    taken_over: int = 0
    decisions: Mapping[str, Any] | None = None

    @property
    def failed(self) -> int:
        """Count the rows without a score."""
        return self.rows - self.status.get(Status.OK.value, 0)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be scored, and with what.

    Args:
        config: of the run.
        manifest: the list of images, opened.
        models: the bundle, or several, opened.
        known: the earlier runs that results are taken over from; None if there are none.
    """

    config: ScoreConfig
    manifest: Manifest
    models: Models
    known: KnownRuns | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What a runner is to have done.

    Args:
        job: what is to be scored.
        ledger: the chunks that are left.
        progress: adds up what the workers report.
        directory: where the parts go; this process has claimed it.
    """

    job: Job
    ledger: Ledger
    progress: RunProgress
    directory: RunDirectory


class Runner(Protocol):
    """What gets the chunks of a ledger scored: workers on this host, or on a Ray cluster."""

    @property
    def devices(self) -> Sequence[str]:
        """Return the devices it scores on; precisions follow them."""
        ...

    @property
    def described(self) -> Sequence[str]:
        """Describe the devices, for `_SUCCESS`."""
        ...

    def prepare(self, job: Job) -> None:
        """Check that the job can be scored, as far as that shows before there is an output folder.

        Raises:
            PscrError: it can't be.
        """
        ...

    def score(self, task: Task) -> None:
        """Have every chunk of the ledger scored; call `task.progress.begin` when the first worker is ready."""
        ...


def run_manifest(config: ScoreConfig, runner: Runner, report: Report) -> RunResult:
    """Score every row of a manifest into `config.out`, or go on with a run that is there, whichever runner it had.

    Args:
        config: what is asked for.
        runner: has the chunks scored.
        report: called with snapshots now and then, and with the last one at the end.

    Raises:
        UsageError: the manifest, the settings, the output folder or the place of metrics are not usable.
        BundleError, BackendError, MissingDependencyError: the bundle can't be run here.
        WorkerError: workers die again and again.
        TooManyFailuresError: the run is complete, but too many images failed.
    """
    with metered(config.metrics_file, config.metrics_port, config.metrics_host, config.out) as meter:
        result = _check_failures(config, _run(config, runner, report, meter))
        meter.end("complete" if result.complete else "shard_complete")
        return result


def _run(config: ScoreConfig, runner: Runner, report: Report, meter: Meter) -> RunResult:
    config = choose_models(config)
    models = open_models(config, runner.devices)
    manifest = open_manifest(config.manifest, config.columns)
    for model in models.all:
        log.info(
            "bundle %s%s: %s, %s, %d exemplars",
            f"{model.name}: " if models.named else "",
            model.choice.describe(),
            model.bundle.info.backbone,
            model.precision,
            model.bundle.exemplars.count,
        )
    meter.identify(
        bundle=models.text(lambda model: str(model.choice)),
        precision=models.text(lambda model: model.precision),
        runner=config.runner,
        shard=str(config.shard),
    )
    chunk_rows = config.rows_per_chunk(manifest.num_rows)
    identity = run_identity(config, models, manifest, chunk_rows)
    known = None if models.named else KnownRuns.open(config, manifest, identity, models.only.bundle.info.feature_size)
    digests = () if known is None else known.digests
    facts = run_facts(config, models, manifest, chunk_rows, digests)
    if config.keep_top is not None:
        facts["threshold"] = threshold_of(config, models.only, manifest)
        config = replace(config, keep_above=facts["threshold"], keep_top=None)
    job, since = Job(config, manifest, models, known), monotonic()
    with ExitStack() as stack:
        if known is not None:
            stack.enter_context(closing(known))
        if not RunDirectory.holds_run(config.out):  # what can't be scored leaves no folder behind
            runner.prepare(job)
        directory = RunDirectory.open(config.out, facts, overwrite=config.overwrite, shard=config.shard)
        stack.enter_context(closing(directory))
        _check_threshold(facts, directory)
        directory.drop_damaged_parts(chunk_rows)
        already = directory.success()
        if already is not None and not config.retry_failed:
            return _complete_already(config, already, report, meter)
        else:
            ledger, rows_before = _plan(directory, manifest, chunk_rows, retry_failed=config.retry_failed)

            def checked_report(snapshot: Snapshot) -> None:
                directory.check()
                share.note_now_and_then()
                report(snapshot)

            total = None if manifest.num_rows is None else config.shard.rows(manifest.num_rows, chunk_rows)
            progress = RunProgress(total, rows_before, checked_report, directory.begin, since=since)
            share = ProcessShare(directory, progress)
            task = Task(job, ledger, progress, directory)
            meter.watch(
                lambda: replace(progress.figures(), chunks=ledger.open_chunks(), chunks_returned=ledger.given_back)
            )
            try:
                runner.score(task)
                directory.begin()  # where no worker was needed
                manifest.check_unchanged()
                return _finish(task, runner, share, report)
            except BaseException:
                progress.snapshot(final=True)
                share.note()
                raise


def _check_threshold(facts: Mapping[str, Any], directory: RunDirectory) -> None:
    """Raise InUseError if another shard that began at the same time has found another threshold, by a rounding."""
    ours, theirs = facts.get("threshold"), directory.run.get("threshold")
    if ours != theirs:
        raise InUseError(
            f"{directory.path}: another process has begun this run meanwhile, with a threshold of {theirs}, not "
            f"{ours}: give the same command again"
        )


def _complete_already(config: ScoreConfig, success: Mapping[str, Any], report: Report, meter: Meter) -> RunResult:
    log.info("%s is complete already (%s is there)", config.out, SUCCESS_FILE)
    rows = success["rows"]
    meter.watch(lambda: Figures(total=rows, done=rows))
    report(replace(RunProgress(rows, rows, report).snapshot(final=True), seconds=0.0))
    result = RunResult(config.out, rows, success["status"], scored=0, seconds=0.0, shard=config.shard)
    return replace(result, taken_over=_taken_over(success), decisions=success.get("decisions"))


def _taken_over(success: Mapping[str, Any]) -> int:
    return int(success.get("taken_over", {}).get("rows", 0))


def _finish(task: Task, runner: Runner, share: ProcessShare, report: Report) -> RunResult:
    """Write `_SUCCESS` if all parts of all shards are there, and say what this run has done."""
    config, directory, progress, chunk_rows = task.job.config, task.directory, task.progress, task.ledger.chunk_rows
    progress.total = progress.snapshot().rows
    last = progress.snapshot(final=True)
    status = {name: count for name, count in last.status.items() if count}
    result = RunResult(config.out, last.scored, status, last.scored, last.seconds, config.shard)
    rows = task.ledger.rows if config.shard == WHOLE else rows_if_complete(directory, task.job.manifest, chunk_rows)
    if rows is None:
        share.note()
        report(last)
        return replace(result, complete=False, parts=len(directory.parts.indices()))
    facts = throughput_facts(config, last, progress.startup_seconds, runner.described, progress.backend)
    if not rows:  # readers of parts want at least their columns
        sizes = task.job.models.feature_sizes
        schema = part_schema(task.job.manifest, sizes, config, stamps=has_stamps(directory.run))
        directory.parts.write(0, schema.empty_table())
    facts.update(count_taken(config, directory.parts))
    facts.update(count_decisions(config, directory.parts))
    success = directory.finish(rows, max(1, math.ceil(rows / chunk_rows)), facts, share.so_far(last.seconds))
    report(last)
    result = replace(result, rows=success["rows"], status=success["status"], processes=shares_of(success))
    return replace(result, taken_over=_taken_over(success), decisions=success.get("decisions"))


def rows_if_complete(directory: RunDirectory, manifest: Manifest, chunk_rows: int) -> int | None:
    """Count the manifest's rows if every one of them is in a part, whichever process wrote it; else None.

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
    """Find the chunks that are left to score here, and count the rows that are done."""
    done, shard = directory.done(), directory.shard
    retried: dict[int, NDArray[np.bool_]] = {}
    if retry_failed:
        masks = (
            (index, np.array([status != Status.OK for status in statuses]))
            for index, statuses in directory.parts.statuses()
        )
        retried = {index: mask for index, mask in masks if mask.any()}
    ledger = Ledger(chunk_rows, frozenset(done), retried, manifest.num_rows, shard=shard)
    if not done:
        return ledger, 0
    ours = [index for index in done if shard.owns(index)]
    if ours:
        log.info("going on with %s: %d chunks are done", directory.path, len(ours))
    ledger.count_parts(last := directory.parts.rows(done[-1]))
    short = chunk_rows - last if shard.owns(done[-1]) else 0
    return ledger, len(ours) * chunk_rows - short - sum(int(mask.sum()) for mask in retried.values())


def _check_failures(config: ScoreConfig, result: RunResult) -> RunResult:
    if config.max_failure_rate is None:
        if result.rows and result.failed == result.rows:
            raise TooManyFailuresError(
                f"none of the {result.rows} images could be scored{_first_failure(config.out)}; mend that and give the "
                f"command again with {option('--overwrite', True)} or {option('--retry-failed', True)}, or accept it "
                f"with {option('--max-failure-rate', 1)}"
            )
    elif result.rows and result.failed / result.rows > config.max_failure_rate:
        raise TooManyFailuresError(
            f"{result.failed} of {result.rows} images failed ({result.failed / result.rows:.1%}), more than "
            f"{option('--max-failure-rate')} {config.max_failure_rate:g} allows; see the status and error columns in "
            f"{config.out}"
        )
    return result


def _first_failure(out: Place) -> str:
    """Say what happened to the first image of the first part, as an example."""
    parts = Parts(out)
    for index in parts.indices()[:1]:
        for batch in parts.batches(index, ["path", "status", "error"]):
            path, status, error = (column[0].as_py() for column in batch.columns)
            return f"; the first one, {path or 'without a path'}, is {status}: {error}"
    return ""
