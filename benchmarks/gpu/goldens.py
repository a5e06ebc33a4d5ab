"""Compare whole-path scores on the GPU with the scores that the PSCR authors' code computes."""

from __future__ import annotations

import numpy as np

from pscr_engine import Scorer
from pscr_engine.bundle.parity import TOLERANCES
from pscr_engine.errors import PscrError
from pscr_engine.statistics.ranks import spearman

from .place import REFERENCE, Place
from .result import Result

_FP32 = 1e-3  # 1e-4 is for the same arithmetic; convolutions on a GPU add up in another order
_JPEG = 2e-2  # of the label range: decoders round differently


def run(place: Place, result: Result) -> None:
    """Compare scores in FP32 and FP16, of PNGs (equal pixels) and of JPEGs (decoded on the GPU)."""
    golden = place.golden()
    for backbone in place.backbones:
        if backbone in place.bundles or backbone not in golden["models"]:
            result.skipped[backbone] = "reference scores are for the reference weights"
            continue
        bundle = place.bundle(backbone)
        expected = golden["models"][backbone]["runs"]["ops"]["score"]
        low, high = bundle.info.label_range
        for precision in ("fp32", "fp16"):
            try:
                with Scorer.open(bundle.path, device=place.name, precision=precision) as scorer:
                    images = scorer.score([REFERENCE / "images" / name for name in expected])
            except PscrError as error:
                result.check(f"{backbone} {precision}", False, str(error))
                continue
            assert all(image.ok for image in images), [image.error for image in images]
            seen = np.array([image.score for image in images], np.float32)
            wanted = np.array(list(expected.values()), np.float32)
            png = np.array([name.endswith(".png") for name in expected])
            off = np.abs(seen - wanted)
            allowed = _FP32 if precision == "fp32" else TOLERANCES["fp16"][0] * (high - low)
            result.check(
                f"{backbone} {precision}: PNG", off[png].max() <= allowed, f"{off[png].max():.1e} of {allowed}"
            )
            jpeg = off[~png].max()
            result.check(f"{backbone} {precision}: JPEG", jpeg <= _JPEG * (high - low), f"{jpeg:.1e}")
            srcc = spearman(wanted, seen)
            assert srcc is not None
            result.target(f"{backbone} {precision}: SRCC", srcc, 0.9999)
