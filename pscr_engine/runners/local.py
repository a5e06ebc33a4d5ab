"""Score a manifest on this host."""

from __future__ import annotations

import logging
import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .._version import __version__
from ..backends import Backend, create_backend
from ..bundle import Bundle
from ..config import ScoreConfig
from ..errors import TooManyFailuresError
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
    info = bundle.info
    log.info("bundle %s: %s, %s, %d exemplars", bundle.path, info.backbone, backend.precision, bundle.exemplars.count)
    chunk_rows = config.rows_per_chunk(manifest.num_rows)
    facts = _run_facts(config, bundle, manifest, backend.precision, chunk_rows)
    with closing(RunDirectory.open(config.out, facts, overwrite=config.overwrite)) as directory:
        already = directory.success()
        if already is not None and not config.retry_failed:
            log.info("%s is complete already (%s is there)", config.out, SUCCESS_FILE)
            return _check_failures(config, RunResult(config.out, already["rows"], already["status"], 0, 0.0))
        schema = output_schema(manifest.id_type, info.feature_size if config.features else None)
        work = _Work(chunk_rows, manifest, directory, _pipeline(config, bundle, backend), schema, progress)
        start = monotonic()
        work.run(retry_failed=config.retry_failed)
        seconds = monotonic() - start
        content = directory.finish(work.rows, math.ceil(work.rows / chunk_rows), _throughput(work, seconds))
    return _check_failures(config, RunResult(config.out, content["rows"], content["status"], work.scored, seconds))


def _pipeline(config: ScoreConfig, bundle: Bundle, backend: Backend) -> Pipeline:
    sampling = bundle.info.sampling
    decoding = DecodeOptions.for_sampling(sampling, config.max_pixels, config.small_images)
    return Pipeline(
        backend, sampling, decoding, batch_size=config.batch_size or backend.batch_size, features=config.features
    )


@dataclass(slots=True)
class _Work:
    """Drives the rows that are wanted through the pipeline, without a pause between chunks.

    `rows` counts the manifest's rows, `scored` those that went through the pipeline.
    """

    chunk_rows: int
    manifest: Manifest
    directory: RunDirectory
    pipeline: Pipeline
    schema: pa.Schema
    progress: Progress
    rows: int = 0
    scored: int = 0

    def run(self, *, retry_failed: bool) -> None:
        """Score the chunks that have no part yet, and, if asked to, again the failed rows of those that have."""
        parts = self.directory.parts()
        if parts:
            log.info("going on with %s: %d chunks are done", self.directory.path, len(parts))
        failed: dict[int, NDArray[np.bool_]] = {}
        if retry_failed:
            failed = self._failed()
            start = 0
        else:
            # From the last chunk before a gap, not from the gap: that tells how many rows there are
            # if all parts are there and only the completion mark is not.
            gap = next(index for index in range(len(parts) + 1) if index not in parts)
            start = max(0, gap - 1) * self.chunk_rows
        self.directory.reopen()

        def wanted(chunk: int, offset: int) -> bool:
            return chunk not in parts or (chunk in failed and bool(failed[chunk][offset]))

        for chunk, queries in self._scored(self._wanted(wanted, start)):
            if chunk in parts:
                before = pq.read_table(self.directory.part_path(chunk))
                self._commit(chunk, merge(before, queries, self.schema))
            else:
                self._commit(chunk, to_table(queries, self.schema))

    def _failed(self) -> dict[int, NDArray[np.bool_]]:
        """Chunk index → which of its rows have failed, for the chunks that have such rows."""
        masks = (
            (chunk, np.array([status != Status.OK for status in statuses]))
            for chunk, statuses in self.directory.statuses()
        )
        return {chunk: mask for chunk, mask in masks if mask.any()}

    def _wanted(self, wanted: Callable[[int, int], bool], start: int) -> Iterator[Query]:
        """The manifest's rows from `start` on for which `wanted(chunk, offset in the chunk)` holds."""
        source, rows = self.pipeline.stats.source, self.manifest.rows(start)
        self.rows = start
        while True:
            with source.measure(1):
                query = next(rows, None)
            if query is None:
                source.items -= 1  # the end is no row
                return
            self.rows += 1
            if wanted(*divmod(query.row, self.chunk_rows)):
                yield query
            else:
                query.data = None

    def _scored(self, wanted: Iterator[Query]) -> Iterator[tuple[int, list[Query]]]:
        """Chunk index and its queries, scored; the pipeline reads on meanwhile."""
        for chunk, group in groupby(self.pipeline.run(wanted), lambda query: query.row // self.chunk_rows):
            queries = []
            for query in group:
                queries.append(query)
                self.scored += 1
                self.progress(query.row + 1, self.manifest.num_rows)
            yield chunk, queries

    def _commit(self, index: int, table: pa.Table) -> None:
        with self.pipeline.stats.sink.measure(table.num_rows):
            self.directory.write_part(index, table)


def _throughput(work: _Work, seconds: float) -> dict[str, Any]:
    return {
        "scored_by_last_run": work.scored,
        "seconds": round(seconds, 3),
        "images_per_second": round(work.scored / seconds, 3) if seconds else None,
        "stages": work.pipeline.stats.as_json(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _run_facts(
    config: ScoreConfig, bundle: Bundle, manifest: Manifest, precision: str, chunk_rows: int
) -> dict[str, Any]:
    settings = asdict(config)
    settings.update(manifest=str(config.manifest), bundle=str(config.bundle), out=str(config.out))
    return {
        "pscr_engine": __version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": config.identity(
            bundle_digest=bundle.digest, manifest=manifest, precision=precision, chunk_rows=chunk_rows
        ),
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
