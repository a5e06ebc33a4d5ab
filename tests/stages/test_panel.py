"""Several models over the real pipeline, with backends that need no network."""

import numpy as np
import pytest

from pscr_engine.backends.panel import PanelBackend, check_panel_devices
from pscr_engine.errors import UsageError
from pscr_engine.pipeline import Pipeline
from pscr_engine.records import Query, Status
from pscr_engine.sampling import Sampling
from pscr_engine.scoring import stage_settings
from pscr_engine.stages import on_host
from pscr_engine.stages.decode import decode
from pscr_engine.stages.sample import Sampler

from ..helpers.fakes import FakeBackend
from ..helpers.images import encoded, pixels


class _Bundle:
    def __init__(self, sampling: Sampling) -> None:
        self.info = self
        self.sampling = sampling


class _Overflows(FakeBackend):
    """Gives no finite score to the second image of each batch."""

    def score(self, patches, *, features=False):
        answer = super().score(patches, features=features)
        answer.score[1:2] = np.inf
        return answer


def images(count):
    rng = np.random.default_rng(0)
    sizes = rng.integers(40, 120, (count, 2))
    return [Query(row, data=encoded(pixels(int(w), int(h), row))) for row, (w, h) in enumerate(sizes)]


def opened(batch_size=4, **samplings):
    bundles = {name: _Bundle(Sampling.create(*how)) for name, how in samplings.items()}
    backends = {name: FakeBackend(each.sampling.patches, batch_size) for name, each in bundles.items()}
    return bundles, backends


def run(bundles, backends, queries, **options):
    together = PanelBackend(bundles, backends)
    first = next(iter(bundles.values()))
    return list(Pipeline(together, stage_settings(first, together, **options)).run(queries))


@pytest.mark.parametrize(
    "samplings",
    [
        {"a": ("ops", 32), "b": ("ops", 32)},
        {"a": ("ops", 32), "b": ("nops", 48)},
        {"a": ("rps", 32), "b": ("none", 24), "c": ("rps", 32, 7)},
    ],
)
@pytest.mark.parametrize("small_images", ["upscale", "error"])
def test_each_model_gets_what_it_would_get_alone(samplings, small_images):
    bundles, backends = opened(**samplings)
    scored = run(bundles, backends, images(37), small_images=small_images, features=True)
    assert [query.row for query in scored] == list(range(37))
    for name, bundle in bundles.items():
        alone = FakeBackend(bundle.sampling.patches)
        settings = stage_settings(bundle, alone, small_images=small_images, features=True)
        own = list(Pipeline(alone, settings).run(images(37)))
        assert alone.batches == backends[name].batches
        for query, mine in zip(scored, own, strict=True):
            if query.ok:
                result = query.results[name]
                assert (result.score, result.score_std) == (mine.score, mine.score_std)
                assert np.array_equal(result.features, mine.features)
    assert sum(query.ok for query in scored) > 20


def test_an_image_is_decoded_once_and_patches_are_cut_once_per_sampling(monkeypatch):
    decoded, cut = [], []
    sample = Sampler.sample

    def decoding(query, options):
        decoded.append(query.row)
        decode(query, options)

    def sampled(self, query, *rest):
        cut.append(query.row)
        sample(self, query, *rest)

    monkeypatch.setattr(on_host, "decode", decoding)
    monkeypatch.setattr(Sampler, "sample", sampled)
    bundles, backends = opened(a=("ops", 32), b=("ops", 32), c=("nops", 32))
    together = PanelBackend(bundles, backends)
    pipeline = Pipeline(together, stage_settings(bundles["a"], together))
    assert all(query.ok for query in pipeline.run(images(20)))
    assert sorted(decoded) == list(range(20))
    assert sorted(cut) == sorted([*range(20), *range(20)])
    assert pipeline.stats.infer.items == pipeline.stats.sample.items == 20


def test_one_models_failure_is_the_images():
    bundles, backends = opened(a=("ops", 32), b=("ops", 32))
    backends["b"] = _Overflows(9, 4)
    scored = run(bundles, backends, images(8))
    assert [query.row for query in scored if not query.ok] == [1, 5]
    assert scored[1].status is Status.UNDECODABLE
    assert scored[1].error == "b: its score is not a finite number in fp32"


def test_an_image_too_small_for_one_model_names_it():
    bundles, backends = opened(a=("ops", 32), b=("ops", 64))
    scored = run(bundles, backends, [Query(0, data=encoded(pixels(40, 40, 1)))], small_images="error")
    assert (scored[0].status, scored[0].error) == (Status.TOO_SMALL, "b: 40×40: a side is below the patch size of 64")
    scored = run(bundles, backends, [Query(0, data=encoded(pixels(20, 20, 1)))], small_images="error")
    assert scored[0].error == "20×20: a side is below the patch size of 32"


def test_gpus_are_refused():
    check_panel_devices(["cpu", "cpu"])
    with pytest.raises(UsageError, match="not on cuda:0"):
        check_panel_devices(["cuda:0"])
