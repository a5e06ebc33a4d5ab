"""Scores equal the PSCR authors' implementation's, per image and exemplar."""

import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from pscr_engine import Scorer

from ..conftest import REFERENCE

RUNS = [
    ("resnet18", "ops"),
    ("resnet18", "nops"),
    ("resnet18", "cr"),
    ("resnet50", "ops"),
    ("vgg16", "ops"),
    ("vgg16", "nops"),
    ("vgg16", "cr"),
    ("inceptionv4", "ops"),
    ("inceptionv4", "cr"),
]


def test_every_golden_is_tested(golden):
    assert sorted(RUNS) == sorted((name, run) for name, model in golden["models"].items() for run in model["runs"])


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "run"), RUNS)
def test_reference_scores(golden, reference_bundle, backbone, run):
    bundle = reference_bundle(backbone, {"cr": "none"}.get(run, run))
    expected = golden["models"][backbone]["runs"][run]
    assert bundle.info.patch_size == golden["models"][backbone]["patch_size"]
    assert bundle.exemplars.labels.tolist() == pytest.approx([row["mos"] for row in golden["exemplars"]], rel=1e-7)
    names = list(expected["score"])
    images = Scorer.open(bundle.path).score(
        [REFERENCE / "images" / name for name in names], exemplar_scores=True, features=True
    )
    for name, image in zip(names, images, strict=True):
        assert image.ok, image.error
        assert image.score == pytest.approx(expected["score"][name], abs=1e-4)
        assert image.exemplar_scores == pytest.approx(np.array(expected["prediction"][name]), abs=1e-4)
        delta = image.exemplar_scores - bundle.exemplars.labels
        assert delta == pytest.approx(np.array(expected["delta"][name]), abs=1e-4)


@pytest.mark.slow
def test_the_exemplar_cache_holds_the_reference_features(golden, reference_bundle):
    bundle = reference_bundle("resnet18", "ops")
    expected = golden["models"]["resnet18"]["runs"]["ops"]["features"]
    for exemplar, features in zip(golden["exemplars"], bundle.exemplars.features, strict=True):
        facts = expected[exemplar["path"]]
        assert np.linalg.norm(features) == pytest.approx(facts["l2"], rel=1e-5)
        assert features[:8] == pytest.approx(np.array(facts["first8"]), abs=1e-5 * facts["l2"])


@pytest.mark.slow
def test_batch_size_and_order_at_full_size(reference_bundle, golden):
    scorer = Scorer.open(reference_bundle("resnet18", "ops").path)
    names = list(golden["models"]["resnet18"]["runs"]["ops"]["score"])
    paths = [REFERENCE / "images" / name for name in names]
    scores = {size: [image.score for image in scorer.score(paths, batch_size=size)] for size in (1, 7, 32)}
    assert scores[1] == pytest.approx(scores[7], abs=1e-5)
    assert scores[32] == pytest.approx(scores[7], abs=1e-5)
    order = np.random.default_rng(0).permutation(len(paths))
    shuffled = scorer.score([paths[index] for index in order], batch_size=7)
    assert [image.score for image in shuffled] == pytest.approx([scores[7][index] for index in order], abs=1e-5)
    again = Scorer.open(scorer.bundle.path).score(paths, batch_size=7)
    assert [image.score for image in again] == scores[7]  # to the bit


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "precisions"), [("resnet18", ["fp32", "fp16"]), ("mae", ["fp32"])])
def test_the_commands_from_checkpoint_to_scores(cli, tmp_path, checkpoint, golden, backbone, precisions):
    ckpt = checkpoint(backbone, "--data-parallel")
    images = REFERENCE / "images"
    exported = cli(
        "export", "--ckpt", ckpt, "--exemplars", images / "exemplars.csv", "--precision", ",".join(precisions)
    )
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout.startswith(f"bundle: model.pscr ({backbone}, 10 exemplars)")
    bundle_table = pq.read_table(tmp_path / "model.pscr" / "exemplars.parquet").to_pylist()
    first = bundle_table[0]
    assert first["path"] == "exemplars/e01_cat.png"
    assert first["sha256"] == hashlib.sha256((images / first["path"]).read_bytes()).hexdigest()
    scores = {}
    for precision in precisions:
        outcome = cli("score", "--manifest", images / "queries", "--precision", precision, "--out", precision)
        assert outcome.returncode == 0, outcome.stderr
        table = pq.read_table(tmp_path / precision / "part-000000.parquet").to_pylist()
        scores[precision] = {row["path"]: row["score"] for row in table}
    if "fp16" in scores:
        assert scores["fp16"] == pytest.approx(scores["fp32"], abs=5e-3 * 3.6)
        assert scores["fp16"] != scores["fp32"]
    if backbone in golden["models"]:
        expected = golden["models"][backbone]["runs"]["ops"]["score"]
        assert scores["fp32"] == pytest.approx(
            {name.removeprefix("queries/"): value for name, value in expected.items()}, abs=1e-4
        )
    again = cli("export", "--ckpt", ckpt, "--exemplars", images / "exemplars.csv")
    assert again.returncode == 2
    assert "there is a bundle already" in again.stderr
