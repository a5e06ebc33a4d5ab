"""Score a manifest on this host."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .._version import __version__
from ..backends import create_backend
from ..bundle import Bundle
from ..config import ScoreConfig
from ..errors import TooManyFailuresError, UsageError
from ..host import usable_cpus
from ..pipeline import Pipeline
from ..records import Query, Status
from ..run_directory import SUCCESS_FILE, RunDirectory
from ..stages.decode import DecodeOptions
from ..stages.sink import merge, output_schema, to_table
from ..stages.source import Manifest, open_manifest

log = logging.getLogger("pscr_engine")


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run has done.

    Args:
        out: folder of the parts.
        rows: rows of the manifest, all of them in the parts.
        status: status → number of rows.
        scored: rows that this run worked on; less than `rows` if it went on with an earlier one.
        seconds: time from the first row to the last part.
    """

    out: Path
    rows: int
    status: dict[str, int]
    scored: int
    seconds: float

    @property
    def failed(self) -> int:
        """Rows without a score."""
        return self.rows - self.status.get(Status.OK.value, 0)


Progress = Callable[[int, int | None], None]
"""Called with the rows done so far and the rows there are (None if not yet known)."""


def run(config: ScoreConfig, progress: Progress = lambda done, total: None) -> RunResult:
    """Score every row of a manifest into `config.out`, or go on with a run that is there.

    Raises:
        UsageError: the manifest, the settings or the output folder are not usable.
        BundleError, BackendError, MissingDependencyError: the bundle can't be run here.
        TooManyFailuresError: the run is complete, but too many images failed.
    """
    bundle = Bundle.open(config.bundle)
    manifest = open_manifest(config.manifest, config.columns)
    backend = create_backend(bundle, backend=config.backend, device=config.device, precision=config.precision)
    log.info(
        "bundle %s: %s, %s, %d exemplars",
        bundle.path,
        bundle.info.backbone,
        backend.precision,
        bundle.exemplars.count,
    )
    directory = RunDirectory.open(
        config.out, _run_facts(config, bundle, manifest, backend.precision), overwrite=config.overwrite
    )
    schema = output_schema(manifest.id_type, bundle.info.feature_size if config.features else None)
    sampling = bundle.info.sampling
    pipeline = Pipeline(
        backend,
        sampling,
        DecodeOptions(
            max_pixels=config.max_pixels,
            patch_size=sampling.patch_size,
            small_images=config.small_images,
            digest=sampling.name == "rps",
        ),
        batch_size=config.batch_size or backend.batch_size,
        features=config.features,
    )
    work = _Work(config, manifest, directory, pipeline, schema, progress)
    start = monotonic()
    already = directory.success()
    if config.retry_failed:
        if already is None:
            raise UsageError(
                f"{config.out}: no complete run there to retry; give the command without --retry-failed first"
            )
        done = work.retry_failed()
    elif already is not None:
        log.info("%s is complete already (%s is there)", config.out, SUCCESS_FILE)
        return _check_failures(config, RunResult(config.out, already["rows"], already["status"], 0, 0.0))
    else:
        done = work.score_missing()
    seconds = monotonic() - start
    facts = {
        "scored_by_last_run": done.scored,
        "seconds": round(seconds, 3),
        "images_per_second": round(done.scored / seconds, 3) if seconds else None,
        "stages": pipeline.stats.as_json(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    content = directory.finish(done.rows, done.chunks, facts)
    return _check_failures(config, RunResult(config.out, content["rows"], content["status"], done.scored, seconds))


@dataclass(slots=True)
class _Done:
    """Rows and chunks of the manifest, and how many rows were worked on."""

    rows: int = 0
    chunks: int = 0
    scored: int = 0


@dataclass(slots=True)
class _Work:
    config: ScoreConfig
    manifest: Manifest
    directory: RunDirectory
    pipeline: Pipeline
    schema: pa.Schema
    progress: Progress

    def score_missing(self) -> _Done:
        """Score the chunks that have no part yet."""
        parts, done = self.directory.parts(), _Done()
        if parts:
            log.info("going on with %s: %d chunks are done", self.directory.path, len(parts))
        for index, rows in self._chunks():
            if index in parts:
                count = sum(1 for _ in rows)
            else:
                scored = self._run(rows, done)
                count = len(scored)
                self._commit(index, to_table(scored, self.schema))
            done.rows += count
            done.chunks += 1
            self.progress(done.rows, self.manifest.num_rows)
        return done

    def retry_failed(self) -> _Done:
        """Score again the rows whose status is not ok, and put the outcome in their places."""
        failed = {
            index: {offset for offset, status in enumerate(statuses) if status != Status.OK}
            for index, (_, statuses) in enumerate(self.directory.statuses())
        }
        self.directory.reopen()
        done = _Done()
        for index, rows in self._chunks():
            again, count = [], 0
            for count, query in enumerate(rows, 1):  # noqa: B007 - used after the loop
                if query.row - done.rows in failed.get(index, ()):
                    again.append(query)
            if again:
                retried = self._run(again, done)
                self._commit(index, merge(pq.read_table(self.directory.part_path(index)), retried, self.schema))
            done.rows += count
            done.chunks += 1
            self.progress(done.rows, self.manifest.num_rows)
        return done

    def _chunks(self) -> Iterator[tuple[int, Iterator[Query]]]:
        """Index and rows of each chunk; a chunk's rows must be used up before the next is asked for."""
        rows = self._timed_rows()
        index = 0
        while (first := next(rows, None)) is not None:
            yield index, _prepend(first, islice(rows, self.config.chunk_rows - 1))
            index += 1

    def _timed_rows(self) -> Iterator[Query]:
        source, rows = self.pipeline.stats.source, self.manifest.rows()
        while True:
            with source.measure(1):
                query = next(rows, None)
            if query is None:
                source.items -= 1  # the end is no row
                return
            yield query

    def _run(self, rows: Iterable[Query], done: _Done) -> list[Query]:
        """The rows of a chunk, scored, in any order."""
        scored = []
        for query in self.pipeline.run(rows):
            scored.append(query)
            self.progress(done.rows + len(scored), self.manifest.num_rows)
        done.scored += len(scored)
        return scored

    def _commit(self, index: int, table: pa.Table) -> None:
        with self.pipeline.stats.sink.measure(table.num_rows):
            self.directory.write_part(index, table)


def _prepend(first: Query, rest: Iterator[Query]) -> Iterator[Query]:
    yield first
    yield from rest


def _run_facts(config: ScoreConfig, bundle: Bundle, manifest: Manifest, precision: str) -> dict[str, Any]:
    settings = asdict(config)
    settings.update(manifest=str(config.manifest), bundle=str(config.bundle), out=str(config.out))
    return {
        "pscr_engine": __version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": config.identity(bundle_digest=bundle.digest, fingerprint=manifest.fingerprint, precision=precision),
        "settings": settings,
        "bundle": {
            "backbone": bundle.info.backbone,
            "sampling": bundle.info.sampling.as_json(),
            "exemplars": bundle.exemplars.count,
            "precision": precision,
            "parity": bundle.info.graphs[precision].parity.as_json(),
        },
        "host": {
            "name": platform.node(),
            "machine": platform.machine(),
            "cpus": usable_cpus(),
            "pid": os.getpid(),
        },
    }


def _check_failures(config: ScoreConfig, result: RunResult) -> RunResult:
    if result.rows and result.failed / result.rows > config.max_failure_rate:
        raise TooManyFailuresError(
            f"{result.failed} of {result.rows} images failed ({result.failed / result.rows:.1%}), more than "
            f"--max-failure-rate {config.max_failure_rate:g} allows; see the status and error columns in {config.out}"
        )
    return result
