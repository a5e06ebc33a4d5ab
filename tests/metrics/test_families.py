import re
from pathlib import Path

import pytest

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client.openmetrics.exposition import generate_latest  # noqa: E402
from prometheus_client.openmetrics.parser import text_string_to_metric_families  # noqa: E402

from pscr_engine.metrics import Figures, Meter  # noqa: E402
from pscr_engine.metrics.families import CHUNKS, METRICS, STATES, WAITING  # noqa: E402
from pscr_engine.records import STAGES, Status  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def exposed(meter):
    registry = prometheus_client.CollectorRegistry()
    registry.register(meter)
    return list(text_string_to_metric_families(generate_latest(registry).decode()))


def samples(meter):
    return {(s.name, *s.labels.values()): s.value for family in exposed(meter) for s in family.samples}


def full():
    """Return figures of which every metric has a sample."""
    return Figures("onnxruntime", total=10, workers={"cpu": 2})


def test_the_documented_names_are_the_exported_ones():
    row = re.compile(r"^\| `(pscr_engine_\w+)` \| (\w+) \|([^|]*)\| ([^|]*) \|$", re.MULTILINE)
    rows = row.findall(PAGE.read_text("utf-8"))
    documented = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows]
    assert documented == [(metric.name, metric.kind, metric.labels, metric.help) for metric in METRICS]
    meter = Meter()
    meter.watch(full)
    exported = {
        (sample.name, family.type, frozenset(sample.labels)) for family in exposed(meter) for sample in family.samples
    }
    assert exported == {(name, kind, frozenset(labels)) for name, kind, labels, _ in documented}


def test_the_documented_values_of_labels_are_all():
    described = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE))
    assert re.findall(r"`(\w+)`", described["state"]) == list(STATES)
    assert re.findall(r"`(\w+)`", described["stage"]) == [*STAGES, *WAITING]
    assert re.findall(r"`(\w+)`", described["place"]) == list(CHUNKS)


def test_values():
    meter = Meter()
    assert samples(meter)["pscr_engine_run_state", "starting"] == 1
    meter.identify(bundle="m", precision="fp32", runner="local", shard="0/1")
    counts = {
        "decode": (7, 1.5),
        "verify": (5, 0.1),
        "mismatch": (2, 0.0),
        "read": (1234, 0.0),
        "retry": (3, 0.0),
        "repeated": (5, 0.0),
    }
    waiting, chunks = {"decode": 5}, {"returned": 1}
    figures = Figures("openvino", 10, 4, {"ok": 3, "missing": 1}, 2, counts=counts, waiting=waiting, chunks=chunks)
    meter.watch(lambda: figures)
    found = samples(meter)
    expected = {
        ("run_state", "running"): 1,
        ("run_state", "complete"): 0,
        ("rows_total", "ok"): 3,
        ("rows_total", "missing"): 1,
        ("rows_total", Status.TOO_LARGE): 0,
        ("run_rows",): 10,
        ("run_rows_done",): 4,
        ("uncommitted_rows",): 2,
        ("stage_images_total", "decode"): 7,
        ("stage_seconds_total", "decode"): 1.5,
        ("stage_seconds_total", "infer"): 0,
        ("stage_waiting_images", "decode"): 5,
        ("open_chunks", "returned"): 1,
        ("decoding_checks_total", "same"): 3,
        ("decoding_checks_total", "different"): 2,
        ("read_bytes_total",): 1234,
        ("fetch_retries_total",): 3,
        ("repeated_images_total",): 5,
    }
    for (name, *labels), value in expected.items():
        assert found[f"pscr_engine_{name}", *labels] == value, name
    info = next(family for family in exposed(meter) if family.name == "pscr_engine_run_info").samples[0].labels
    assert {name: info[name] for name in ("bundle", "backend", "shard")} == {
        "bundle": "m",
        "backend": "openvino",
        "shard": "0/1",
    }
    meter.end("complete")
    meter.end("failed")  # too late
    assert samples(meter)["pscr_engine_run_state", "complete"] == 1


def test_what_is_not_known_is_absent():
    assert ("pscr_engine_run_rows",) not in samples(Meter())


def test_odd_names_of_bundles_are_escaped():
    meter = Meter()
    meter.identify(bundle='a "b"\\c\nd')
    labels = next(family for family in exposed(meter) if family.name == "pscr_engine_run_info").samples[0].labels
    assert labels["bundle"] == 'a "b"\\c\nd'
