"""Measure what some of an image's patches tell of its score, and what decisions by as few as needed gain."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pscr_training.data.labelled import Item
from pscr_training.metrics import srcc
from pscr_training.scoring import labels_of

from pscr_engine.atomic import sha256_of
from pscr_engine.backends.early import early_rule
from pscr_engine.backends.patchwise import PatchwiseEngine
from pscr_engine.bundle import MANIFEST_NAME, Bundle, PatchScores
from pscr_engine.calibration import calibrate, with_calibration
from pscr_engine.calibration.calibrate import prefix_scores
from pscr_engine.manifests import ManifestOptions, open_manifest
from pscr_engine.models.shipped import FOLDER
from pscr_engine.stages.decision import PatchRule

from ..common import RESULTS, record, spread
from .fidelity import write_manifest
from .recipes import SHIPPED, Place
from .ship import NAME, parts_of

CALIBRATION_IMAGES = 1100
MADE_UP = 600
RISKS = (0.005, 0.01, 0.02)
SHARES = (0.05, 0.1, 0.2, 0.5)
ROUNDS = 3
METHOD = (
    "The shipped model, and the 600 test images of AGIQA-3K's prompt-disjoint split (seed 1); nothing was chosen on "
    "them. It is calibrated on 1,100 others: the 235 validation images and 865 of those trained on, drawn at random "
    "(100 of them for the order of patches). 'made-up images': 600, with a calibration on 1,000 others. "
    "'by patches': scores by the first k patches against those by all nine (root mean square and largest difference, "
    "the 99.5% quantile), and SRCC with people's ratings. 'by position': each patch alone. 'decisions': for thresholds "
    "that keep a share of the images; intervals are 95% (Clopper and Pearson). 'score': `pscr-engine score` over the "
    "test images, processes of their own, a round runs all ways in turn after one that warms up; seconds from when a "
    "worker is ready to the last part."
)


def calibrate_shipped(place: Place) -> Path:
    """Calibrate the shipped bundle on images that are no test images, and return its folder."""
    folder, facts_file, out = FOLDER / f"{NAME}.pscr", FOLDER / f"{NAME}.json", place.work / f"{NAME}-calibrated.pscr"
    parts = parts_of(place, SHIPPED)
    chosen = np.random.default_rng(0).permutation(len(parts.train))[: CALIBRATION_IMAGES - len(parts.val)]
    items = [*parts.val, *(parts.train[index] for index in chosen)]
    manifest = open_manifest(str(write_manifest(place.work / "calibration.csv", items)), ManifestOptions())
    found, unread = calibrate(Bundle.open(folder), manifest, images=CALIBRATION_IMAGES)
    assert not unread
    with_calibration(Bundle.open(folder), found, out, overwrite=True)
    shutil.rmtree(folder)
    shutil.copytree(out, folder)
    facts = json.loads(facts_file.read_text())
    facts["bundle"] = sha256_of(folder / MANIFEST_NAME)
    facts_file.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return folder


def early_decision(place: Place) -> Path:
    """Measure decisions and speed, and write the record."""
    bundle, test = Bundle.open(FOLDER / f"{NAME}.pscr"), parts_of(place, SHIPPED).test
    files, labels = [item.file for item in test], labels_of(test)
    figures: dict[str, Any] = {}
    for precision in ("fp32", "int8"):
        engine = PatchwiseEngine(bundle.graph_path(precision), bundle.exemplars, precision=precision)
        features = _features(engine, bundle, files)
        assert bundle.patch_scores is not None
        prefixes = np.stack([prefix_scores(engine, each, bundle.patch_scores.order) for each in features])
        figures[precision] = {
            "order": list(bundle.patch_scores.order),
            "by patches": _by_patches(prefixes, labels),
            "by position": _by_position(engine, features, labels),
            "correlation of patches' scores": _correlation(engine, features),
            "decisions": _decisions(bundle, precision, prefixes),
        }
        print(precision, json.dumps(figures[precision]["decisions"]), flush=True)
    figures["made-up images, fp32"] = _made_up(bundle, place.work)
    print("made-up", json.dumps(figures["made-up images, fp32"]), flush=True)
    threshold = figures["fp32"]["decisions"]["keep 10%"]["threshold"]
    figures["score"] = _speed(test, place.work, threshold)
    path = record("early-decision", METHOD, figures)
    _plot(figures, RESULTS / "early-decision.svg")
    return path


def _features(engine: PatchwiseEngine, bundle: Bundle, files: Sequence[Path]) -> list[NDArray[np.float32]]:
    sampling = bundle.info.sampling
    patches = np.empty((sampling.patches, sampling.patch_size, sampling.patch_size, 3), np.uint8)
    found = []
    for file in files:
        with Image.open(file) as image:
            sampling.sample(np.asarray(image.convert("RGB")), patches)
        found.append(engine.features(patches))
    return found


def _by_patches(prefixes: NDArray[np.float32], labels: NDArray[Any]) -> list[dict[str, float]]:
    whole = prefixes[:, -1]
    rows = []
    for k in range(prefixes.shape[1]):
        off = np.abs(prefixes[:, k] - whole)
        rows.append(
            {
                "patches": k + 1,
                "root mean square": round(float(np.sqrt(np.mean(off**2))), 4),
                "99.5% quantile": round(float(np.quantile(off, 0.995)), 4),
                "largest": round(float(off.max()), 4),
                # Errors by score: low, middle and high thirds.
                **{
                    f"root mean square, {name} third": round(float(np.sqrt(np.mean(off[third] ** 2))), 4)
                    for name, third in zip(("low", "middle", "high"), np.array_split(np.argsort(whole), 3), strict=True)
                },
                "SRCC with ratings": round(srcc(prefixes[:, k].astype(np.float64), labels), 4),
            }
        )
    return rows


def _by_position(
    engine: PatchwiseEngine, features: Sequence[NDArray[np.float32]], labels: NDArray[Any]
) -> list[dict[str, float]]:
    stacked = np.stack(features)
    whole = engine.compare(stacked.mean(axis=1)).score
    rows = []
    for patch in range(stacked.shape[1]):
        alone = engine.compare(np.ascontiguousarray(stacked[:, patch])).score
        off = float(np.sqrt(np.mean((alone - whole) ** 2)))
        rows.append(
            {
                "patch": patch,
                "root mean square": round(off, 4),
                "SRCC with ratings": round(srcc(alone.astype(np.float64), labels), 4),
            }
        )
    return rows


def _correlation(engine: PatchwiseEngine, features: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    stacked = np.stack(features)
    alone = np.stack([engine.compare(np.ascontiguousarray(stacked[:, k])).score for k in range(stacked.shape[1])])
    pairs = np.asarray(np.corrcoef(alone))[np.triu_indices(len(alone), 1)]
    return {"smallest": round(float(pairs.min()), 3), "mean": round(float(pairs.mean()), 3)}


def _decisions(bundle: Bundle, precision: str, prefixes: NDArray[np.float32]) -> dict[str, Any]:
    whole, figures = prefixes[:, -1], {}
    for share in SHARES:
        threshold = float(np.quantile(whole, 1 - share))
        row: dict[str, Any] = {"threshold": round(threshold, 4)}
        for risk in RISKS:
            rule = early_rule(bundle, precision, threshold, risk)
            kept, used = follow(rule, prefixes)
            changed = int((kept != (whole >= threshold)).sum())
            row[f"risk {risk:g}"] = {
                "changed": changed,
                "share": round(changed / len(whole), 5),
                "interval": interval(changed, len(whole)),
                "patches": round(float(used.mean()), 3),
                "times fewer": round(prefixes.shape[1] / float(used.mean()), 2),
            }
        figures[f"keep {share:.0%}"] = row
    return figures


def follow(rule: PatchRule, prefixes: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Follow a rule for images whose scores by 1, 2, ... D patches are known, [N, D].

    Returns:
        Which are kept, bool [N], and how many patches each took, int64 [N].
    """
    N, D = prefixes.shape
    assert rule.threshold is not None
    kept, used, left = np.zeros(N, bool), np.zeros(N, np.int64), np.ones(N, bool)
    for k in range(1, D + 1):
        done = left & rule.decided(prefixes[:, k - 1], k)
        kept[done], used[done] = prefixes[done, k - 1] >= rule.threshold, k
        left &= ~done
    return kept, used


def interval(changed: int, count: int) -> list[float]:
    """Return Clopper and Pearson's 95% interval of a share."""
    from scipy.stats import beta

    low = beta.ppf(0.025, changed, count - changed + 1) if changed else 0.0
    high = beta.ppf(0.975, changed + 1, count - changed) if changed < count else 1.0
    return [round(float(low), 5), round(float(high), 5)]


def _made_up(bundle: Bundle, work: Path) -> dict[str, Any]:
    from pscr_engine.synthetic import generate

    engine = PatchwiseEngine(bundle.graph_path("fp32"), bundle.exemplars)
    folder = work / "made-up"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = []
    for index, made in enumerate(generate(MADE_UP + CALIBRATION_IMAGES, seed=11)):
        files.append(folder / f"{index:04d}.jpg")
        made.image.save(files[-1], quality=92)
    features = _features(engine, bundle, files)
    assert bundle.patch_scores is not None
    order = bundle.patch_scores.order
    prefixes = np.stack([prefix_scores(engine, each, order) for each in features])
    calibrated = replace(bundle, patch_scores=PatchScores(order, {"fp32": prefixes[MADE_UP + 100 :]}))
    shutil.rmtree(folder)
    return _decisions(calibrated, "fp32", prefixes[:MADE_UP])


def _speed(test: Sequence[Item], work: Path, threshold: float) -> dict[str, Any]:
    manifest = write_manifest(work / "test.csv", list(test))
    ways: dict[str, tuple[str, ...]] = {
        "plain": (),
        "--keep-above (10% kept), risk 0.005": ("--keep-above", str(threshold)),
        "--keep-above (10% kept), risk 0.02": ("--keep-above", str(threshold), "--risk", "0.02"),
        "--patches 3": ("--patches", "3"),
    }
    figures: dict[str, Any] = {"images": len(test)}
    for precision in ("fp32", "int8"):
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):
            for name, options in ways.items():
                taken = _seconds(manifest, work, ("--precision", precision, *options))
                if number:  # the first round warms up
                    seconds[name].append(taken)
        figures[precision] = {
            name: {
                "images per second": spread([len(test) / each for each in values]),
                "times plain": spread([plain / each for plain, each in zip(seconds["plain"], values, strict=True)]),
            }
            for name, values in seconds.items()
        }
        print(precision, json.dumps(figures[precision]), flush=True)
    return figures


def _seconds(manifest: Path, work: Path, options: Sequence[str]) -> float:
    out = work / "early-decision"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pscr_engine", "score", manifest, "--bundle", NAME, "--out", out]
    command += ["--devices", "cpu", "--backend", "onnxruntime", *options]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return float(json.loads((out / "_SUCCESS").read_text())["seconds"])


def _plot(figures: dict[str, Any], file: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pscr-engine"
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    rows = figures["fp32"]["by patches"]
    left.plot([row["patches"] for row in rows], [row["root mean square"] for row in rows], "o-")
    left.set_xlabel("patches")
    left.set_ylabel("difference from nine patches (RMS)")
    left.set_ylim(bottom=0)
    for risk in RISKS:
        taken = [figures["fp32"]["decisions"][f"keep {share:.0%}"][f"risk {risk:g}"]["patches"] for share in SHARES]
        right.plot([100 * share for share in SHARES], taken, "o-", label=f"risk {risk:.1%}")
    right.set_xlabel("images kept, %")
    right.set_ylabel("patches per image")
    right.set_ylim(0, 9)
    right.legend()
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
