"""The earlier runs that a run takes results over from."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow as pa

from ...config import ScoreConfig
from ...errors import OutputError, UsageError, option
from ...manifests import Manifest
from ...manifests.unicode import utf8
from ...output.parts import Parts
from ...stages.sink import TAKEN_FROM
from .earlier_run import EarlierRun
from .index import Index, build, files_of
from .take_over import KnownImages

log = logging.getLogger("pscr_engine")


class KnownSetup(NamedTuple):
    """What a worker needs to know of earlier runs.

    Args:
        digests: of the runs, as the run's identity has them.
        started: when each began, in nanoseconds.
        folder: where their index is; None for workers that make their own.
    """

    digests: Sequence[str]
    started: Sequence[int]
    folder: Path | None = None

    def open(self, config: ScoreConfig, id_type: pa.DataType | None, feature_size: int) -> KnownImages:
        """Open the index, or make one that goes when this process does.

        Raises:
            PscrError: a run can't be read, or isn't what it was.
        """
        size = feature_size if config.features else None
        if self.folder is not None:
            index = Index(self.folder, size)
        else:
            runs = [EarlierRun.open(each, config.known_by) for each in config.known]
            for run, digest in zip(runs, self.digests, strict=True):
                if run.digest != digest:
                    raise OutputError(f"{option('--known')} {run.place}: is not the same run on this host")
            with TemporaryDirectory(prefix="pscr-known-") as folder:
                build(runs, Path(folder), failed=config.known_failed, feature_size=size)
                index = Index(Path(folder), size)  # mapped files stay readable once they are removed
        failed = config.known_failed and not config.retry_failed
        return KnownImages(index, _names(config), self.started, config.known_by, failed, id_type)


@dataclass(slots=True)
class KnownRuns:
    """The earlier runs, checked; their index is made when it is first needed.

    Args:
        runs: in the order in which they were named.
        failed: whether failed rows are known, too.
        feature_size: C, if the runs have features.
    """

    runs: Sequence[EarlierRun]
    failed: bool
    feature_size: int | None
    _folder: TemporaryDirectory[str] | None = field(default=None, init=False)

    @classmethod
    def open(
        cls, config: ScoreConfig, manifest: Manifest, identity: Mapping[str, Any], feature_size: int
    ) -> KnownRuns | None:
        """Open the runs that are to be known; None if there are none.

        Args:
            config: the new run's settings.
            manifest: its list of images.
            identity: what its rows depend on.
            feature_size: C.

        Raises:
            OutputError: one is no complete run.
            UsageError: its results would not be this run's, or nothing tells which images it has scored.
        """
        if not config.known:
            return None
        by_id, id_type = config.known_by == "id", manifest.id_type
        if by_id and id_type is None:
            raise UsageError(
                f"{option('--known-by', 'id')}: the list has no identifiers; name their column with "
                f"{option('--id-column')}, or use {option('--known-by', 'path')}"
            )
        runs = [EarlierRun.open(each, config.known_by) for each in config.known]
        for run in runs:
            run.check_settings(identity)
            if by_id:
                run.check_id_type(id_type)
        return cls(runs, config.known_failed, feature_size if config.features else None)

    @property
    def digests(self) -> list[str]:
        """Return what changes whenever one of the runs does."""
        return [run.digest for run in self.runs]

    @property
    def _started(self) -> list[int]:
        return [run.started for run in self.runs]

    def indexed(self) -> KnownSetup:
        """Make the index, unless it is there, and return a setup for several workers on this host."""
        if self._folder is None:
            folder = TemporaryDirectory(prefix="pscr-known-")
            try:
                build(self.runs, Path(folder.name), failed=self.failed, feature_size=self.feature_size)
            except BaseException:
                folder.cleanup()
                raise
            self._folder = folder
            size = sum(file.stat().st_size for file in files_of(Path(folder.name)))
            log.info("known images: an index of %.1f MiB", size / 2**20)
        return KnownSetup(self.digests, self._started, Path(self._folder.name))

    def unindexed(self) -> KnownSetup:
        """Return a setup for workers on other hosts, or a single one: each makes an index of its own."""
        return KnownSetup(self.digests, self._started)

    def close(self) -> None:
        """Remove the index. Processes that have it open keep it."""
        if self._folder is not None:
            self._folder.cleanup()


def _names(config: ScoreConfig) -> list[str]:
    return [utf8(each) or "" for each in config.known]


def count_taken(config: ScoreConfig, parts: Parts) -> dict[str, Any]:
    """Return what `_SUCCESS` says of rows that were taken over: how many, known by what, and from which run."""
    if not config.known:
        return {}
    counts: Counter[str] = Counter(dict.fromkeys(_names(config), 0))
    for index in parts.indices():
        for batch in parts.batches(index, [TAKEN_FROM.name]):
            for each in batch.column(0).drop_null().value_counts().to_pylist():
                counts[each["values"]] += each["counts"]
    return {"taken_over": {"rows": counts.total(), "known_by": config.known_by, "from": dict(counts)}}
