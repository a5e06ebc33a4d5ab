import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pscr_engine.output.run_groups import read_groups
from pscr_engine.output.run_reader import RunReader
from pscr_engine.report.axis import Axis
from pscr_engine.report.counts import Density, Histogram, Thresholds
from pscr_engine.report.failures import Failures
from pscr_engine.report.galleries import Leaders
from pscr_engine.report.gather import gather
from pscr_engine.report.group_table import SHOWN

from ..helpers.runs import make_run

finite = st.floats(-1e6, 1e6, width=32)


def made(folder, scores, stds=None, models=None, **more):
    models = models or ["x"] * len(scores)
    lines = [f"{row}.png,{model}" for row, model in enumerate(models)]
    (folder / "m.csv").write_text("\n".join(["path,model", *lines]) + "\n")
    return RunReader.open(make_run(folder / "scores", folder / "m.csv", scores, stds=stds, **more))


@pytest.mark.medium
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.none() | finite | st.sampled_from([1.0, 1.5]), min_size=1, max_size=60), st.integers(0, 5))
def test_all_figures_are_those_of_a_table_in_memory(tmp_path_factory, scores, images):
    stds = [row * 5 % 7 / 7 for row in range(len(scores))]
    run = made(tmp_path_factory.mktemp("run"), scores, stds, chunk_rows=7)
    found = gather(run, images)
    rows = [row for row, score in enumerate(scores) if score is not None]
    values = np.array([scores[row] for row in rows], np.float32)
    assert (found.rows, found.scored) == (len(scores), len(rows))
    if not rows:
        assert found.shape is None
        return
    shape, ordered = found.shape, np.sort(values)
    assert [each.value for each in shape.quantiles] == [ordered[k * (len(rows) - 1) // 1000] for k in range(1001)]
    assert shape.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-6, abs=1e-6)
    assert shape.deviation == pytest.approx(values.astype(np.float64).std(), rel=1e-4, abs=1e-2)
    assert shape.histogram.counts.sum() == shape.density.counts.sum() == len(rows)
    for text, kept in shape.thresholds:
        assert kept == (values >= np.float32(text)).sum()
    score = dict(zip(rows, values.tolist(), strict=True))
    median = float(ordered[(len(rows) - 1) // 2])
    measures = {
        "best": lambda row: -score[row],
        "worst": lambda row: score[row],
        "uncertain": lambda row: -np.float32(stds[row]),
        "median": lambda row: abs(np.float32(score[row]) - np.float32(median)),
    }
    for name, measure in measures.items():
        assert [pick.row for pick in shape.galleries[name]] == sorted(rows, key=lambda row: (measure(row), row))[
            :images
        ]
    assert all(pick.score == score[pick.row] for gallery in shape.galleries.values() for pick in gallery)
    if images:
        assert shape.ladder[0].score == ordered[0]
        assert shape.ladder[100].score == ordered[-1]


def test_groups_the_largest_first_and_the_rest_together(tmp_path):
    models = [f"m{min(row % 40, 39 - row % 3)}" for row in range(400)]
    scores = [None if row % 9 == 0 else float(row) for row in range(400)]
    run = made(tmp_path, scores, models=models, chunk_rows=50)
    lines = gather(run, 0, read_groups(run, run.open_manifest(), "model", 1000)).groups
    assert len(lines) == SHOWN + 1
    assert [line.rows for line in lines[:-1]] == sorted((line.rows for line in lines[:-1]), reverse=True)
    assert lines[-1].label == f"{len(set(models)) - SHOWN} smaller groups together"
    assert sum(line.rows for line in lines) == 400
    assert sum(line.scored for line in lines) == sum(score is not None for score in scores)
    for line in lines[:-1]:
        own = [score for score, model in zip(scores, models, strict=True) if model == line.label]
        values = sorted(score for score in own if score is not None)
        assert line.scored == len(values)
        assert line.mean == pytest.approx(np.mean(values))
        assert line.quantiles == [values[share * (len(values) - 1) // 100] for share in (5, 25, 50, 75, 95)]


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.integers(4, 60))
def test_an_axis_has_round_ends_around_its_values(low, width, bins):
    axis = Axis.around(low, low + width, bins)
    assert float(axis.low) <= low
    assert float(axis.high) >= low + width
    assert 2 <= axis.bins <= bins + 2
    assert (axis.low / axis.step) % 1 == (axis.high / axis.step) % 1 == 0
    ticks = axis.ticks(6)
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    assert len(ticks) <= 7
    steps = axis.steps(500)
    assert len(steps) <= 501
    assert all("e" not in step.lower() for step in steps)
    assert float(steps[0]) == float(axis.low)


def test_values_beyond_an_axis_count_at_its_ends():
    axis = Axis.around(0, 10, 10)
    histogram, density = Histogram(axis), Density(axis, axis)
    values = np.array([-5, 0, 0.5, 10, 99], np.float32)
    histogram.add(values)
    assert histogram.counts[0] == 3
    assert histogram.counts.sum() == 5
    density.add(values, values[::-1].copy())
    assert density.counts.sum() == 5
    assert density.beyond == 2


def test_thresholds_count_as_float32_does():
    thresholds = Thresholds(["0.1", "0.2", "0.3"])
    thresholds.add(np.array([0.1, 0.2, 0.3, 0.05, 7], np.float32))
    assert thresholds.kept() == [4, 3, 2]


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0]) | finite, max_size=20), max_size=5), st.integers(0, 6))
def test_leaders_are_the_first_of_a_sort(batches, count):
    leaders, row = Leaders(count), 0
    for batch in batches:
        values = np.array(batch, np.float32)
        leaders.add(values, np.arange(row, row + len(batch)), values, values)
        row += len(batch)
    everything = np.array([value for batch in batches for value in batch], np.float32)
    expected = sorted(range(row), key=lambda at: (-everything[at], at))[:count]
    assert [at for at, *_ in leaders.found()] == expected
    assert [value for _, value, _ in leaders.found()] == [float(everything[at]) for at in expected]


def failed(*errors):
    rows = {"row": range(len(errors)), "path": [f"{row}.png" for row in range(len(errors))]}
    statuses = ["ok" if error is None else "undecodable" for error in errors]
    schema = pa.schema([("row", pa.int64()), ("path", pa.string()), ("status", pa.string()), ("error", pa.string())])
    return pa.table({**rows, "status": statuses, "error": list(errors)}, schema=schema).to_batches()[0]


def test_like_failures_are_counted_together():
    failures = Failures()
    for _ in range(3):
        failures.add(failed(None, "truncated (12 bytes)", "no such file: /a/b c.png", "truncated (3,400 bytes)"))
        failures.add(failed("at 0x7fab, in /usr/lib/x.so", "no such file: relative\nname", "é" * 500))
    assert failures.status == {"ok": 3, "undecodable": 18}
    assert failures.total == 18
    counts = {reason: found.count for (_, reason), found in failures.reasons.items()}
    assert counts == {"truncated (… bytes)": 6, "no such file": 6, "at …, in …": 3, "é" * 160: 3}
    assert [len(found.examples) for found in failures.reasons.values()] == [5, 5, 3, 3]
    first = failures.reasons["undecodable", "truncated (… bytes)"].examples[0]
    assert first == {"row": 1, "path": "1.png", "error": "truncated (12 bytes)"}


def test_the_list_of_reasons_is_bounded():
    failures = Failures()
    letters = [chr(ord("a") + number // 26) + chr(ord("a") + number % 26) for number in range(300)]
    failures.add(failed(*letters))
    failures.add(failed(*letters))
    assert len(failures.reasons) == 100
    assert failures.other == 400
    assert sum(found.count for found in failures.reasons.values()) + failures.other == failures.total == 600
