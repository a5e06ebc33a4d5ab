import itertools
import threading
import time

import numpy as np
import pytest

from pscr_engine import records
from pscr_engine.backends import BatchScores
from pscr_engine.errors import BackendError
from pscr_engine.pipeline import Pipeline
from pscr_engine.records import Query, Status
from pscr_engine.sampling import Sampling
from pscr_engine.stages import fetch as fetch_module
from pscr_engine.stages import infer as infer_module
from pscr_engine.stages import on_host
from pscr_engine.stages.base import StageSettings
from pscr_engine.stages.decode import DecodeOptions
from pscr_engine.stages.sample import Sampler

from .helpers.fakes import FakeBackend
from .helpers.images import encoded, pixels

OPS = Sampling.create("ops", 32)


def pipeline(backend=None, **options):
    backend = backend or FakeBackend(OPS.patches)
    decoding = DecodeOptions(patch_size=32, max_pixels=10**6)
    return Pipeline(backend, StageSettings(OPS, decoding, backend.batch_size, **options))


def function_of(stage):
    """Return the module and the name of the function that does a stage's work."""
    return (fetch_module, "read_file") if stage == "fetch" else (infer_module if stage == "infer" else on_host, stage)


def grey(value, side=40):
    return encoded(np.full((side, side, 3), value, np.uint8))


def test_every_query_comes_out_once_whatever_fails():
    data = [grey(10), b"", grey(20), b"broken", grey(30), grey(40), grey(50), grey(60), None]
    queries = [Query(row, data=item) for row, item in enumerate(data)]
    queries[-1].fail(Status.MISSING, "no such file")
    out = {query.row: query for query in pipeline().run(queries)}
    assert sorted(out) == list(range(9))
    assert [out[row].status.value for row in range(9)] == [
        "ok", "undecodable", "ok", "undecodable", "ok", "ok", "ok", "ok", "missing",
    ]  # fmt: skip
    assert [out[row].score for row in (0, 2, 4, 5, 6, 7)] == [10, 20, 30, 40, 50, 60]
    assert out[0].score_std == pytest.approx(np.std([-1, 0, 1]))


def test_batches_are_full_in_spite_of_failures():
    backend = FakeBackend(OPS.patches, batch_size=4)
    data = [grey(1), b"", grey(2), b"", grey(3), grey(4), b"", grey(5)]
    list(pipeline(backend).run(Query(row, data=item) for row, item in enumerate(data)))
    assert backend.batches == [4, 1]


def test_pixels_and_bytes_are_let_go():
    (query,) = pipeline().run([Query(0, data=grey(9))])
    assert query.data is None
    assert query.pixels is None


def test_features_and_exemplar_scores_only_when_asked():
    (query,) = pipeline().run([Query(0, data=grey(9))])
    assert query.features is None
    assert query.exemplar_scores is None
    (query,) = pipeline(features=True, exemplar_scores=True).run([Query(0, data=grey(9))])
    assert query.features.tolist() == [9, -9]
    assert query.exemplar_scores.tolist() == [8, 9, 10]


def test_an_image_that_cannot_be_enlarged_does_not_disturb_its_batch():
    sliver = encoded(pixels(1, 5000))
    out = list(pipeline().run([Query(0, data=grey(5)), Query(1, data=sliver), Query(2, data=grey(7))]))
    assert {query.row: (query.status.value, query.score) for query in out} == {
        0: ("ok", 5), 1: ("too_small", None), 2: ("ok", 7),
    }  # fmt: skip


def test_every_stage_counts():
    p = pipeline()
    list(p.run([Query(0, data=grey(5)), Query(1, data=b""), Query(2, data=grey(7))]))
    assert (p.stats.fetch.items, p.stats.decode.items, p.stats.sample.items, p.stats.infer.items) == (
        3,
        3,
        2,
        2,
    )
    assert p.stats.infer.seconds > 0


def test_a_score_that_is_no_number_is_a_row():
    class Overflows(FakeBackend):
        def score(self, patches, *, features=False):
            answer = super().score(patches)
            answer.score[answer.score == 7] = np.nan
            return answer

    out = list(pipeline(Overflows(OPS.patches)).run(Query(row, data=grey(5 + row)) for row in range(4)))
    assert [(query.status.value, query.score) for query in out] == [
        ("ok", 5), ("ok", 6), ("undecodable", None), ("ok", 8),
    ]  # fmt: skip
    assert out[2].error == "its score is not a finite number in fp32"


def test_a_backend_that_loses_images_ends_the_run():
    class Loses(FakeBackend):
        def score(self, patches, *, features=False):
            answer = super().score(patches)
            return BatchScores(answer.score[:-1], answer.exemplar_scores[:-1], None)

    with pytest.raises(BackendError, match=r"gave scores \[0\] for 1 images"):
        list(pipeline(Loses(OPS.patches)).run([Query(0, data=grey(5))]))


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("stage", ["fetch", "decode", "infer", "sample", "source"])
def test_a_fault_in_any_stage_ends_the_run_with_the_fault_itself(monkeypatch, stage, error):
    calls = itertools.count()

    def fault(*args, **options):
        if next(calls) == 20:
            raise error("injected")
        return original(*args, **options)

    def rows():
        for row in range(200):
            if stage == "source" and row == 50:
                raise error("injected")
            yield Query(row, data=grey(5))

    if stage == "sample":
        original = Sampler.sample
        monkeypatch.setattr(Sampler, "sample", fault)
    elif stage != "source":
        module, name = function_of(stage)
        original = getattr(module, name)
        monkeypatch.setattr(module, name, fault)
    start = time.monotonic()
    with pytest.raises(error, match="injected"):
        list(pipeline().run(rows()))
    assert time.monotonic() - start < 10
    assert not [thread for thread in threading.enumerate() if "spdl" in thread.name.lower()]


def test_a_consumer_that_stops_early_stops_the_threads():
    taken = []

    def rows():
        for row in range(100_000):
            taken.append(row)
            yield Query(row, data=grey(5))

    for query in pipeline().run(rows()):
        if query.row == 10:
            break
    del query
    time.sleep(0.3)
    before = len(taken)
    time.sleep(0.3)
    assert len(taken) == before < 2000


def test_large_images_in_memory_go_in_small_groups(monkeypatch):
    monkeypatch.setattr(records, "HELD_BYTES", 10_000)
    images = [Query(row, pixels=np.zeros((40, 40, 3), np.uint8)) for row in range(10)]  # 4,800 bytes each
    p = pipeline()
    assert [len(batch.queries) for batch in p.micro_batches(images)] == [3, 3, 3, 1]
    assert [query.row for query in p.run(images)] == list(range(10))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fetch", "decode", "infer"])
def test_no_fault_hangs_wherever_it_strikes(monkeypatch, stage):
    """Try many moments: queues are short, and the stages before the fault may be full or empty, which is a race."""
    module, name = function_of(stage)
    original, data = getattr(module, name), grey(5)
    for strike in range(0, 190, 6):
        calls, raised = itertools.count(), []

        def fault(*args, calls=calls, strike=strike, **options):
            if next(calls) == min(strike, 40 if stage == "infer" else 190):
                raise ArithmeticError("injected")
            return original(*args, **options)

        def run(raised=raised):
            try:
                list(pipeline().run(Query(row, data=data) for row in range(200)))
            except ArithmeticError as error:
                raised.append(error)

        monkeypatch.setattr(module, name, fault)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(timeout=60)
        assert not thread.is_alive(), f"hangs at {strike}"
        assert raised
