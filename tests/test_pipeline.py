import numpy as np
import pytest

from pscr_engine.errors import BackendError
from pscr_engine.pipeline import Pipeline
from pscr_engine.records import Query, Status
from pscr_engine.sampling import Sampling
from pscr_engine.stages.decode import DecodeOptions

from .fakes import FakeBackend
from .images import encoded, pixels

OPS = Sampling.create("ops", 32)


def pipeline(backend=None, **options):
    backend = backend or FakeBackend(OPS.patches)
    return Pipeline(backend, OPS, DecodeOptions(patch_size=32, max_pixels=10**6), backend.batch_size, **options)


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


def test_scores_that_are_no_numbers_end_the_run():
    class Broken(FakeBackend):
        def score(self, patches, *, features=False):
            answer = super().score(patches)
            answer.score[:] = np.nan
            return answer

    with pytest.raises(BackendError, match="not finite"):
        list(pipeline(Broken(OPS.patches)).run([Query(0, data=grey(5))]))
