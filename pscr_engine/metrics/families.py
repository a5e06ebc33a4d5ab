"""The metrics: their names, kinds, labels and help, and their values at a moment. `docs/metrics.md` has them, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from ..records import STAGES, Status
from .figures import Figures

PREFIX = "pscr_engine_"
INFO = ("bundle", "precision", "backend", "runner", "shard", "version")
STATES = ("starting", "running", "complete", "shard_complete", "too_many_failures", "interrupted", "failed")
WAITING = ("fetch", "decode", "infer")
CHUNKS = ("at_workers", "returned")


class Metric(NamedTuple):
    """What is said of a metric beside its values.

    Args:
        name: as it is scraped, with the suffix `_total` of a counter.
        kind: "counter" or "gauge".
        help: one sentence.
        labels: names of its labels.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric("pscr_engine_run_info", "gauge", "Always 1: the labels say what is run.", INFO),
    Metric("pscr_engine_run_state", "gauge", "1 for the run's state, 0 for the others.", ("state",)),
    Metric("pscr_engine_run_start_time_seconds", "gauge", "When this process began, in seconds since 1970."),
    Metric("pscr_engine_run_update_time_seconds", "gauge", "When these values were taken, in seconds since 1970."),
    Metric("pscr_engine_run_rows", "gauge", "Rows of the run, or of this shard; absent until that is known."),
    Metric("pscr_engine_run_rows_done", "gauge", "Rows of the run that are in parts, earlier processes' included."),
    Metric("pscr_engine_rows_total", "counter", "Rows that this process has written to parts.", ("status",)),
    Metric("pscr_engine_uncommitted_rows", "gauge", "Rows that are scored, in chunks that are not written yet."),
    Metric("pscr_engine_images_per_second", "gauge", "Rows that this process has scored per second so far."),
    Metric("pscr_engine_scoring_seconds", "gauge", "Seconds since the first worker was ready."),
    Metric("pscr_engine_startup_seconds", "gauge", "Seconds until the first worker was ready."),
    Metric("pscr_engine_stage_images_total", "counter", "Images that have passed a stage.", ("stage",)),
    Metric(
        "pscr_engine_stage_seconds_total", "counter", "Seconds spent in a stage, over threads and workers.", ("stage",)
    ),
    Metric("pscr_engine_stage_waiting_images", "gauge", "Images that wait for a stage or are in it.", ("stage",)),
    Metric("pscr_engine_chunks_total", "counter", "Chunks that this process has written as parts."),
    Metric("pscr_engine_open_chunks", "gauge", "Chunks that are handed out, or given back.", ("place",)),
    Metric("pscr_engine_chunk_retries_total", "counter", "Chunks that were given back, as their worker was gone."),
    Metric("pscr_engine_workers", "gauge", "Workers that are ready.", ("device",)),
    Metric("pscr_engine_workers_lost_total", "counter", "Workers that were ready, and died or were lost."),
    Metric("pscr_engine_read_bytes_total", "counter", "Bytes of encoded images that were read."),
    Metric("pscr_engine_written_bytes_total", "counter", "Bytes of parts that were written."),
    Metric("pscr_engine_fetch_retries_total", "counter", "Requests for images that were sent again."),
    Metric("pscr_engine_repeated_images_total", "counter", "Images that got the result of others with the same bytes."),
    Metric(
        "pscr_engine_decoding_checks_total", "counter", "Images from a GPU's decoder that were compared.", ("result",)
    ),
)


class Moment(NamedTuple):
    """All that values are taken from.

    Args:
        figures: the run's.
        info: label of `pscr_engine_run_info` → its value.
        state: one of `STATES`.
        started: when the process began, in seconds since 1970.
        now: when the figures were taken.
    """

    figures: Figures
    info: Mapping[str, str]
    state: str
    started: float
    now: float


def families(moment: Moment) -> Iterator[Family]:
    """Yield every metric with its values, in the order of `METRICS`."""
    values = _values(moment)
    for metric in METRICS:
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
        for labels, value in values[metric.name.removeprefix(PREFIX)]:
            family.add_metric(labels, value)
        yield family


_Samples = Iterable[tuple[tuple[str, ...], float]]


def _values(moment: Moment) -> dict[str, _Samples]:
    figures = moment.figures
    verified, wrong = (_count(figures, name)[0] for name in ("verify", "mismatch"))
    return {
        "run_info": [(tuple(moment.info.get(label, "") for label in INFO), 1)],
        "run_state": _by({moment.state: 1}, STATES),
        "run_start_time_seconds": _one(moment.started),
        "run_update_time_seconds": _one(moment.now),
        "run_rows": [] if figures.total is None else _one(figures.total),
        "run_rows_done": _one(figures.done),
        "rows_total": _by(figures.status, [status.value for status in Status]),
        "uncommitted_rows": _one(figures.uncommitted),
        "images_per_second": _one(figures.images_per_second),
        "scoring_seconds": _one(figures.seconds),
        "startup_seconds": _one(figures.startup_seconds),
        "stage_images_total": [((name,), _count(figures, name)[0]) for name in STAGES],
        "stage_seconds_total": [((name,), _count(figures, name)[1]) for name in STAGES],
        "stage_waiting_images": _by(figures.waiting, WAITING),
        "chunks_total": _one(figures.chunks_done),
        "open_chunks": _by(figures.chunks, CHUNKS),
        "chunk_retries_total": _one(figures.chunks_returned),
        "workers": [((device,), count) for device, count in sorted(figures.workers.items())],
        "workers_lost_total": _one(figures.workers_lost),
        "read_bytes_total": _one(_count(figures, "read")[0]),
        "written_bytes_total": _one(_count(figures, "written")[0]),
        "fetch_retries_total": _one(_count(figures, "retry")[0]),
        "repeated_images_total": _one(_count(figures, "repeated")[0]),
        "decoding_checks_total": [(("same",), verified - wrong), (("different",), wrong)],
    }


def _one(value: float) -> _Samples:
    return [((), value)]


def _by(values: Mapping[str, float], names: Iterable[str]) -> _Samples:
    return [((name,), values.get(name, 0)) for name in names]


def _count(figures: Figures, name: str) -> tuple[int, float]:
    return figures.counts.get(name, (0, 0.0))
