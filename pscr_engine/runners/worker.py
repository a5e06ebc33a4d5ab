"""The worker: scores chunks into parts, with one backend, in this process."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from ..backends import Backend, create_backend
from ..backends.devices import is_gpu
from ..backends.early import EarlyBackend
from ..backends.panel import PanelBackend
from ..bundle import Bundle
from ..config import ScoreConfig
from ..errors import BundleError, option, speak
from ..host import usable_cpus
from ..manifests import Manifest
from ..models import BundleChoice, choose_bundles
from ..output.parts import Parts
from ..pipeline import Pipeline
from ..records import MicroBatch, Query, RunStats, StageCounts, Status
from ..stages.base import StageSettings
from ..stages.decode import DecodeOptions
from ..stages.fetch import Fetcher, OnRead
from ..stages.pillow import pillow_for_a_run
from ..stages.sink import EARLY, SHA256, STAMP, TAKEN_FROM, in_order, merge, output_schema, to_table
from .early import rule_of
from .image_folders import ImageFolders
from .known import KnownImages, KnownSetup
from .ledger import Chunk, ChunkDone
from .open_models import Models
from .repeats import Repeats

_NOT_READ = (Status.MISSING, Status.UNREADABLE)
# Rows that are taken over wait for their chunk's end as tables: this many at a time, as queries.
_TAKEN_AT_ONCE = 1024
# To find the best batch size on a GPU takes some ten seconds, to find the faster engine on a processor some five; once
# per host and bundle. So many rows take far longer.
_ROWS_WORTH_TUNING = {"gpu": 50_000, "cpu": 2_000}


class Expected(NamedTuple):
    """What a worker must find, and what it does with it.

    Args:
        digest: the bundle's.
        precision: which of its graphs runs.
    """

    digest: str
    precision: str


def expected(models: Models) -> dict[str, Expected]:
    """Say which bundles a run's workers must find."""
    return {model.name: Expected(model.bundle.digest, model.precision) for model in models.all}


class WorkerSetup(NamedTuple):
    """All that a worker needs to know, whichever process it is in.

    Args:
        config: the run's settings.
        manifest: the list of images, opened.
        device: which one of the run's devices is this worker's.
        models: name → what its bundle was at the start of the run; the name is "" in a run of one bundle.
        folder: what identified the images' folder at the start, see `identity_of`.
        threads: processor threads that it may use; None for all usable cores.
        on_command_line: whether the run's caller is there, and its messages speak of options.
        known: the earlier runs that results are taken over from, if there are any.
        stamps: whether the parts have stamps.
    """

    config: ScoreConfig
    manifest: Manifest
    device: str
    models: Mapping[str, Expected]
    folder: tuple[int, int] | None = None
    threads: int | None = None
    on_command_line: bool = False
    known: KnownSetup | None = None
    stamps: bool = True

    def speak(self) -> None:
        """Make this process's messages speak the language of the run's caller."""
        speak(on_command_line=self.on_command_line)


def part_schema(
    manifest: Manifest, feature_sizes: Mapping[str, int], config: ScoreConfig, *, stamps: bool
) -> pa.Schema:
    """Return the columns of a run's parts; `feature_sizes` has C by the name of each model, "" for one alone."""
    more = [
        *(EARLY if config.keep_above is not None else []),
        *([STAMP] if stamps else []),
        *([SHA256] if config.known_by == "content" else []),
        *([TAKEN_FROM] if config.known else []),
    ]
    models = {name: size if config.features else None for name, size in feature_sizes.items()}
    return output_schema(manifest.id_type, None, *more, models=models)


class _Taken(NamedTuple):
    """Rows that are taken over, which pass no stage."""

    queries: list[Query]


class _End(NamedTuple):
    """Marks the end of a chunk, behind its last micro-batch."""

    chunk: Chunk
    rows: int


def _worth_tuning(setup: WorkerSetup) -> bool:
    rows = setup.manifest.num_rows
    return rows is None or rows >= _ROWS_WORTH_TUNING["gpu" if is_gpu(setup.device) else "cpu"]


@dataclass(slots=True)
class Worker:
    """Drives chunk after chunk through one pipeline, without a pause between them.

    Args:
        manifest: the list of images.
        parts: where the scores go.
        pipeline: scores with this worker's backend.
        schema: columns of the parts.
        folders: notices when the images' folders go away.
        known: the images that earlier runs have scored; None if there are none.
        repeats: the images that this worker has scored; None if each is scored however often it comes.
        moved: called when rows have come out of the pipeline; `status` and `stages` tell how many.
        before_commit: called before a part is written; may raise to keep it from that.
    """

    manifest: Manifest
    parts: Parts
    pipeline: Pipeline
    schema: pa.Schema
    folders: ImageFolders
    known: KnownImages | None = None
    repeats: Repeats | None = None
    moved: Callable[[], None] = lambda: None
    before_commit: Callable[[], None] = lambda: None
    status: Counter[str] = field(default_factory=Counter)
    _unread: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, setup: WorkerSetup, models: Models | None = None) -> Worker:
        """Load the bundle, or several, onto the worker's device.

        Args:
            setup: what the worker is to do.
            models: the run's, if this process has them open: to open a bundle is to read and verify all of it.

        Raises:
            BundleError, BackendError, MissingDependencyError: the bundle can't be run there.
        """
        config = setup.config
        bundles = _bundles(setup) if models is None else {model.name: model.bundle for model in models.all}
        setup.manifest.check_unchanged()
        backend = _backend(setup, bundles)
        sizes = {name: bundle.info.feature_size for name, bundle in bundles.items()}
        schema = part_schema(setup.manifest, sizes, config, stamps=setup.stamps)
        bundle = next(iter(bundles.values()))  # of several, each has stages of its own, see `PanelStages`
        known = _known(setup, bundle)
        stats = RunStats()
        repeats = Repeats(stats) if config.once_per_content else None
        fetcher = Fetcher(
            private_addresses=config.columns.allow_private_addresses,
            on_read=_on_read(known, repeats),
            stats=stats,
        )
        pipeline = pipeline_of(config, bundle, backend, setup.threads, fetcher, stats)
        folders = ImageFolders(setup.manifest.folder, setup.folder)
        return cls(setup.manifest, Parts(config.out), pipeline, schema, folders, known, repeats)

    @property
    def backend(self) -> str:
        """Return the name of the backend that it scores with."""
        return self.pipeline.backend.name

    @property
    def stages(self) -> StageCounts:
        """Return items and seconds per stage so far."""
        return self.pipeline.stats.counts()

    def run(self, chunks: Iterable[Chunk]) -> Iterator[ChunkDone]:
        """Score `chunks`, which are asked for as the pipeline has room, and commit each when its last row is scored.

        `status` counts the rows since the last chunk that was yielded.

        Raises:
            PscrError: a part can't be written, or the images' folder or object store has gone.
            Exception: whatever a stage raised.
        """
        # As tables at once: thousands of queries take many times the memory of their columns.
        tables: list[pa.Table] = []
        with pillow_for_a_run(), closing(self.pipeline.run_batches(self._batches(chunks))) as batches:
            for batch in batches:
                if batch.queries:
                    self.folders.watch(batch.queries[0])
                    if self.repeats is not None:
                        self.repeats.note(batch.queries)
                    tables.append(self._table(batch.queries))
                    self.status.update(query.status.value for query in batch.queries)
                    if self.pipeline.fetcher.remote:
                        self._unread.update(_unread_places(batch.queries))
                if isinstance(batch.tag, _Taken):
                    tables.append(self._table(batch.tag.queries))
                    self.status.update(query.status.value for query in batch.tag.queries)
                if isinstance(batch.tag, _End):
                    self._commit(batch.tag.chunk, tables)
                    yield ChunkDone(batch.tag.chunk.index, batch.tag.rows, self.status)
                    tables, self.status = [], Counter()
                self.moved()

    def _batches(self, chunks: Iterable[Chunk]) -> Iterator[MicroBatch]:
        """Cut chunks into micro-batches, none of which holds rows of two chunks.

        So a row's neighbours, and with them the last bit of its score, depend on its chunk alone.
        """
        reader = self.manifest.reader()
        for chunk in chunks:
            rows = _Counted(reader.read(chunk.rows))
            yield from self._unknown(_wanted(rows, chunk), chunk)
            yield MicroBatch([], tag=_End(chunk, rows.count))

    def _unknown(self, queries: Iterator[Query], chunk: Chunk) -> Iterator[MicroBatch]:
        """Cut what is to be scored into micro-batches, which are full though known images are left out."""
        if self.known is None or not self.known.tells_before_fetch:
            yield from self.pipeline.micro_batches(queries, tag=chunk)
            return
        more = True
        while more:
            taken: list[Query] = []
            yield from self.pipeline.micro_batches(self.known.split(queries, taken, _TAKEN_AT_ONCE), tag=chunk)
            more = len(taken) >= _TAKEN_AT_ONCE
            if taken:
                yield MicroBatch([], tag=_Taken(taken))

    def _table(self, queries: list[Query]) -> pa.Table:
        with self.pipeline.stats.sink.measure(0):
            return to_table(queries, self.schema)

    def _commit(self, chunk: Chunk, tables: list[pa.Table]) -> None:
        if self.status[Status.MISSING] or self.status[Status.UNREADABLE]:
            self.folders.check()
        if self._unread:
            all_failed = not any(count for name, count in self.status.items() if name not in _NOT_READ)
            self.pipeline.fetcher.check(self._unread, all_failed=all_failed)
            self._unread.clear()
        if not tables:
            return
        self.manifest.check_files_unchanged()  # by now, all rows of the chunk have been read
        with self.pipeline.stats.sink.measure(sum(table.num_rows for table in tables)):
            part = in_order(tables)
            self.before_commit()
            if chunk.again is not None:
                part = merge(self.parts.read(chunk.index), part)
            self.pipeline.stats.written.add(self.parts.write(chunk.index, part), 0.0)


def _bundles(setup: WorkerSetup) -> dict[str, Bundle]:
    """Open the run's bundles, name → bundle; raises BundleError if one is not what it was."""
    choices = choose_bundles(setup.config.bundle)
    bundles = {name: _open(choice) for name, choice in choices.items()}
    for name, bundle in bundles.items():
        if bundle.digest != setup.models[name].digest:
            raise _changed(choices[name])
    return bundles


def _open(choice: BundleChoice) -> Bundle:
    try:
        return choice.open()
    except BundleError:
        if isinstance(choice.place, Path) and not os.path.lexists(choice.place):
            raise BundleError(
                f"{choice}: is not there any more, or not on this host, though the run began with it; put it back"
            ) from None
        raise


def _backend(setup: WorkerSetup, bundles: Mapping[str, Bundle]) -> Backend:
    config = setup.config
    if config.early:
        bundle, precision = bundles[""], setup.models[""].precision
        rule = rule_of(config, bundle, precision)
        assert rule is not None
        return EarlyBackend(bundle, rule, precision=precision, threads=setup.threads)
    backends = {
        name: create_backend(
            bundle,
            backend=config.backend,
            device=setup.device,
            precision=setup.models[name].precision,
            batch_size=config.batch_size,
            threads=setup.threads,
            throughput=True,
            tune=_worth_tuning(setup),
        )
        for name, bundle in bundles.items()
    }
    return backends[""] if "" in backends else PanelBackend(bundles, backends, config.batch_size)


def _changed(choice: BundleChoice) -> BundleError:
    """Say that a bundle is not the run's: a worker may start long after the run, and on another host."""
    if choice.model is not None:
        return BundleError(
            f"{choice}: the pscr-engine on this host ships another model under that name than the one that the run "
            "began with; install the same version on every host"
        )
    return BundleError(
        f"{choice}: has changed since the run began; put the old one back, or use {option('--overwrite', True)}"
    )


def _unread_places(queries: Iterable[Query]) -> Iterator[str]:
    from ..stores.remote_images import place_of

    return (place_of(query.uri) for query in queries if query.status is Status.UNREADABLE and query.uri is not None)


class _Counted:
    """Counts the queries that pass through."""

    def __init__(self, queries: Iterator[Query]) -> None:
        self._queries, self.count = queries, 0

    def __iter__(self) -> Iterator[Query]:
        for query in self._queries:
            self.count += 1
            yield query


def _wanted(queries: Iterable[Query], chunk: Chunk) -> Iterator[Query]:
    again = chunk.again
    return (query for query in queries if again is None or again[query.row - chunk.rows.start])


def _known(setup: WorkerSetup, bundle: Bundle) -> KnownImages | None:
    if setup.known is not None:
        return setup.known.open(setup.config, setup.manifest.id_type, bundle.info.feature_size)
    return KnownImages(None, (), (), "content") if setup.config.known_by == "content" else None


def _on_read(known: KnownImages | None, repeats: Repeats | None) -> list[OnRead]:
    """List what may know an image by its bytes."""
    calls = [None if known is None else known.on_read, None if repeats is None else repeats.look]
    return [call for call in calls if call is not None]


def pipeline_of(
    config: ScoreConfig, bundle: Bundle, backend: Backend, threads: int | None, fetcher: Fetcher, stats: RunStats
) -> Pipeline:
    """Return the pipeline that scores a run's images with a backend, on so many threads; None for all usable cores."""
    sampling = bundle.info.sampling
    return Pipeline(
        backend,
        StageSettings(
            sampling,
            DecodeOptions.for_sampling(sampling, config.max_pixels, config.small_images),
            batch_size=config.batch_size or backend.batch_size,
            features=config.features,
            decode_threads=threads or usable_cpus(),
            verify_decoding=config.verify_decoding,
            fetcher=fetcher,
            stats=stats,
        ),
    )
