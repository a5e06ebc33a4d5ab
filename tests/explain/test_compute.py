import functools
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pscr_engine import Scorer
from pscr_engine.errors import BundleError, ImageError, UsageError
from pscr_engine.sampling import SAMPLINGS, content_digest

from ..conftest import REFERENCE
from ..helpers.fakes import FakeBackend
from ..helpers.images import encoded, pixels
from ..helpers.tiny import W_DELTA, W_QUERY, W_TRUNK, P, make_bundle

IMAGE = pixels(70, 50, seed=4)


@pytest.fixture(scope="module")
def scorer_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")

    @functools.cache
    def make(sampling):
        return Scorer.open(make_bundle(folder / f"{sampling}.pscr", sampling=sampling).path, device="cpu")

    return make


def direct(bundle, image, digest=b""):
    """Compute features and scores of each patch by itself, in NumPy."""
    sampling, cache = bundle.info.sampling, bundle.exemplars
    patches = np.empty((sampling.patches, P, P, 3), np.uint8)
    sampling.sample(image, patches, digest=digest)
    features = patches.astype(np.float64).mean((1, 2)) / 255 @ W_TRUNK
    hidden = np.maximum((features @ W_QUERY)[:, None] + cache.hidden, 0)
    return features, cache.labels + hidden @ W_DELTA


def test_megabytes_of_text_in_a_png_are_no_trouble(scorer_of):
    info = PngInfo()
    info.add_text("workflow", "workflow " * 400_000, zip=True)
    explanation = scorer_of("ops").explain(encoded(IMAGE, "PNG", pnginfo=info))
    assert explanation.score == scorer_of("ops").score(IMAGE, batch_size=1).score


@settings(deadline=None, max_examples=15)
@given(
    sampling=st.sampled_from(SAMPLINGS),
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    seed=st.integers(0, 99),
    as_file=st.booleans(),
)
def test_a_patch_has_the_score_of_its_own_feature(scorer_of, sampling, height, width, seed, as_file):
    scorer, image = scorer_of(sampling), pixels(height, width, seed)
    given_image = encoded(image) if as_file else image
    explanation = scorer.explain(given_image)
    features, scores = direct(scorer.bundle, image, content_digest(given_image))
    assert [patch.score for patch in explanation.patches] == pytest.approx(scores.mean(1).tolist(), abs=2e-5)
    assert [patch.score_std for patch in explanation.patches] == pytest.approx(scores.std(1).tolist(), abs=2e-5)
    assert np.array_equal(explanation.pixels, image)
    assert explanation.score == scorer.score(given_image, batch_size=1).score
    assert explanation.mean_patch_score == pytest.approx(scores.mean(), abs=2e-5)
    distances = np.linalg.norm(scorer.bundle.exemplars.features - features.mean(0), axis=1)
    assert explanation.nearest[0].distance == pytest.approx(distances.min(), abs=1e-4)
    assert explanation.median_distance == pytest.approx(np.median(distances), abs=1e-4)


def test_the_mean_of_the_patch_scores_is_not_the_score(scorer_of):
    explanation = scorer_of("ops").explain(IMAGE)
    assert abs(explanation.mean_patch_score - explanation.score) > 1e-3


def test_every_kind_of_image_is_explained_alike(scorer_of, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(IMAGE))
    scorer = scorer_of("ops")
    kinds = [tmp_path / "a.png", encoded(IMAGE), Image.fromarray(IMAGE), IMAGE]
    explained = [scorer.explain(kind) for kind in kinds]
    assert len({explanation.patches for explanation in explained}) == 1
    assert [explanation.name for explanation in explained] == [str(tmp_path / "a.png"), "image", "image", "image"]


def test_the_nearest_come_first_with_labels_and_deltas(scorer_of):
    scorer = scorer_of("ops")
    cache, scored = scorer.bundle.exemplars, scorer.score(IMAGE, features=True, exemplar_scores=True)
    everyone = scorer.explain(IMAGE, nearest=99).nearest
    assert len(everyone) == cache.count
    assert sorted(near.index for near in everyone) == list(range(cache.count))
    assert [near.distance for near in everyone] == sorted(near.distance for near in everyone)
    for near in everyone:
        assert near.label == cache.labels[near.index]
        assert near.label + near.delta == pytest.approx(scored.exemplar_scores[near.index], abs=1e-6)
        assert near.distance == pytest.approx(np.linalg.norm(cache.features[near.index] - scored.features), abs=1e-5)
        assert (near.path, near.sha256) == ("x", "0" * 64)
    assert scorer.explain(IMAGE, nearest=2).nearest == everyone[:2]
    assert scorer.explain(IMAGE, nearest=0).nearest == ()


def test_an_image_that_cannot_be_scored_is_an_error(scorer_of, tmp_path):
    scorer = scorer_of("ops")
    for image, options, message in (
        (tmp_path / "none.png", {}, "none.png can't be scored: no such file"),
        (b"broken", {}, "image can't be scored: not an image in a known format"),
        (encoded(IMAGE, "JPEG")[:900], {}, "truncated"),
        (Image.open(io.BytesIO(encoded(IMAGE, "JPEG")[:800])), {}, "image can't be scored"),
        (IMAGE, {"max_pixels": 100}, "over the limit of 100"),
        (pixels(10, 90), {"small_images": "error"}, "a side is below the patch size of 32"),
        (pixels(1, 900), {"max_pixels": 10_000}, "over the limit of 10,000"),
    ):
        with pytest.raises(ImageError, match=message):
            scorer.explain(image, **options)
    assert scorer.explain(pixels(10, 10), max_pixels=100).patches[0].box == (0, 0, 10, 10)


def test_wrong_arguments_are_refused(scorer_of):
    with pytest.raises(TypeError, match="image 0 is a list"):
        scorer_of("ops").explain([IMAGE])
    with pytest.raises(UsageError, match="nearest -1: must be 0 or more"):
        scorer_of("ops").explain(IMAGE, nearest=-1)


def test_a_patch_whose_score_is_no_number_is_named(tiny):
    class Overflowing(FakeBackend):
        def score(self, patches, *, features=False):
            answer = super().score(patches, features=features)
            answer.score[answer.score > 200] = np.nan
            return answer

    image = np.zeros((64, 64, 3), np.uint8)
    image[32:, :32] = 255
    scorer = Scorer(tiny, Overflowing(patches=9, exemplars=5))
    with pytest.raises(ImageError, match="image, patch 7, can't be scored: its score is not a finite number in fp32"):
        scorer.explain(image)


def test_a_damaged_exemplar_table_is_one_line(tmp_path):
    bundle = make_bundle(tmp_path / "m.pscr")
    scorer = Scorer.open(bundle.path)
    (bundle.path / "exemplars.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(BundleError, match=r"exemplars\.parquet: .*; export the bundle again"):
        scorer.explain(IMAGE)


@pytest.mark.slow
def test_patches_of_a_real_network_have_pytorchs_scores(reference_bundle, checkpoint):
    """Compare with the trunk on each patch, and the method's own formula for that feature alone."""
    import torch
    from pscr_export.checkpoint import read_checkpoint
    from pscr_export.network import ScoringNetwork, reference_scores

    bundle, opened = reference_bundle("resnet18"), read_checkpoint(checkpoint("resnet18"))
    file = REFERENCE / "images" / "queries" / "q01_astronaut.png"
    patches = np.empty((9, 224, 224, 3), np.uint8)
    bundle.info.sampling.sample(np.asarray(Image.open(file).convert("RGB")), patches)
    cache = bundle.exemplars
    with torch.inference_mode():
        features = ScoringNetwork(opened.trunk, opened, patches=1).eval().features(torch.from_numpy(patches))
        known = torch.from_numpy(cache.features), torch.from_numpy(cache.labels)
        expected = reference_scores(opened, features, *known).tolist()
    explanation = Scorer.open(bundle.path, device="cpu").explain(file)
    assert [patch.score for patch in explanation.patches] == pytest.approx(expected, abs=2e-5)
    assert max(expected) - min(expected) > 1e-3


def test_an_image_in_an_object_store_is_explained_as_its_bytes_are(scorer_of, bucket):
    content = encoded(IMAGE)
    bucket.put("a.png", content)
    scorer = scorer_of("ops")
    stored, given = scorer.explain(f"{bucket.uri}/a.png"), scorer.explain(content)
    assert stored.name == f"{bucket.uri}/a.png"
    assert (stored.score, stored.patches, stored.nearest) == (given.score, given.patches, given.nearest)
    with pytest.raises(ImageError, match="404 NoSuchKey"):
        scorer.explain(f"{bucket.uri}/gone.png")
