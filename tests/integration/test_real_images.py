"""From a training to evaluated scores, over real images where they are at hand."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
from pscr_export.export import ExportConfig, export_bundle
from pscr_training.config import TrainConfig
from pscr_training.data.open import Source
from pscr_training.data.splits import split
from pscr_training.evaluate import EvaluateConfig, evaluate
from pscr_training.metrics import srcc
from pscr_training.scoring import labels_of
from pscr_training.train import train

from pscr_engine import Scorer
from pscr_engine.config import ScoreConfig
from pscr_engine.manifests import ManifestOptions
from pscr_engine.models import DEFAULT_MODEL, shipped_models

from ..helpers.real import AGIQA_3K, few_dozen, has_agiqa_3k


def scores_by_command(manifest, bundle, out, **options):
    Scorer.score_manifest(
        ScoreConfig(str(manifest), bundle=bundle, out=out, columns=ManifestOptions(root="/"), **options)
    )
    table = pq.read_table(sorted(out.glob("part-*.parquet")), columns=["path", "score", "status"])
    assert set(table["status"].to_pylist()) == {"ok"}
    return dict(zip(table["path"].to_pylist(), table["score"].to_pylist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", ["timm:tf_efficientnet_lite0", "timm:mobilenetv4_conv_small", "timm:convnext_atto"]
)
def test_checkpoint_export_score_evaluate(tmp_path, backbone):
    """Compare PyTorch's scores with the bundle's, for which two steps of training are enough."""
    listed = few_dozen(tmp_path)
    result = train(
        TrainConfig(
            Source(str(listed)), out=tmp_path / "trained", split="prompt-disjoint", val_share=0.25, backbone=backbone,
            weights="none", patch_size=64, epochs=1, batch_size=16, pairs="all", train_patches=2,
            freeze_batch_norms=True,
        )
    )  # fmt: skip
    checkpoint = evaluate(EvaluateConfig(result.last, num_exemplars=10))
    bundle = export_bundle(ExportConfig(result.last, out=tmp_path / "model.pscr", num_exemplars=10))
    assert (bundle.info.backbone, bundle.info.patch_size, bundle.exemplars.count) == (backbone, 64, 10)
    with (tmp_path / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path"])
        writer.writerows([str(item.file.resolve())] for item in checkpoint.items)
    found = scores_by_command(tmp_path / "test.csv", bundle.path, tmp_path / "scores")
    ours = np.array([found[str(item.file.resolve())] for item in checkpoint.items])
    assert np.abs(ours - checkpoint.scores).max() < 1e-4
    by_bundle = evaluate(EvaluateConfig(bundle.path, Source(str(listed)), "prompt-disjoint"))
    assert by_bundle.metrics.srcc.value == pytest.approx(checkpoint.metrics.srcc.value, abs=1e-3)


SHIPPED = shipped_models()[DEFAULT_MODEL]


@pytest.mark.slow
@pytest.mark.skipif(not has_agiqa_3k(), reason="AGIQA-3K's images are not here")
@pytest.mark.parametrize("precision", SHIPPED.open().info.graphs)
def test_the_shipped_model_follows_ratings_of_unseen_prompts(tmp_path, precision):
    """Score 60 of the 600 test images; the bound is so far below the figure for all that chance cannot fail it."""
    items = split(Source("agiqa-3k", str(AGIQA_3K)).open(), "prompt-disjoint", seed=1).test[::10]
    with Scorer.open(DEFAULT_MODEL, device="cpu", precision=precision) as scorer:
        found = np.array([image.score for image in scorer.stream(item.file for item in items)])
    assert srcc(found, labels_of(items)) > 0.75
    assert SHIPPED.facts().figures[precision].images == 600


def test_no_image_is_shipped():
    """Check that the package says how exemplars are called and what they hash to, not what they look like."""
    model = SHIPPED
    files = {file.name for file in model.path.rglob("*") if file.is_file()}
    assert files == {
        "bundle.json", "exemplars.parquet", "exemplars.safetensors", "patch_scores.safetensors",
        *(graph.file for graph in model.open().info.graphs.values()),
    }  # fmt: skip
    assert model.size() < 30_000_000
    names = pq.read_table(model.path / "exemplars.parquet")["path"].to_pylist()
    assert all("/" not in name for name in names)
