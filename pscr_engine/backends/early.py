"""The backend that scores images patch after patch, until enough is known of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, PatchScores
from ..errors import BundleError, UsageError, option
from ..stages.base import StageSettings
from ..stages.decision import PatchRule
from ..stages.early import Rounds
from ..stages.on_host import HostStages
from ..statistics.risk import CONFIDENCE, limit, needed
from .patchwise import PatchwiseEngine

# Few calibration images lie at a threshold, so the widest margin of thresholds around it counts, in standard deviations
# of the scores: found by cross-validation over prompts (docs/decisions.md), without the test's images.
_NEARBY = np.linspace(-0.25, 0.25, 9)


class EarlyBackend:
    """Scores images by some of their patches, as a rule says, on the processor.

    Args:
        bundle: what scores.
        rule: which patches, and when enough is known.
        precision: which of the bundle's graphs.
        threads: processor threads that it may use; None for all usable cores.
    """

    name = "onnxruntime"
    device = "cpu"
    batch_size = 32
    """Images of a micro-batch, at least, of which each core takes a group."""

    def __init__(self, bundle: Bundle, rule: PatchRule, *, precision: str, threads: int | None = None) -> None:
        self.precision = precision
        self._rule = rule
        self._engine = PatchwiseEngine.open(bundle, precision, threads=threads, throughput=True)

    def stages(self, settings: StageSettings) -> HostStages:
        """Open the stages on the processor, as `Backend.stages` describes."""
        return HostStages(Rounds(self._engine, self._rule, settings), settings)

    def close(self) -> None:
        """Do nothing: the sessions are freed with the last reference to them."""


def first_patches(bundle: Bundle, count: int) -> PatchRule:
    """Make the rule that scores the `count` patches that tell most.

    Raises:
        UsageError: the bundle has fewer patches.
        BundleError: it has no calibration, which says which these are.
    """
    D = bundle.info.sampling.patches
    if not 1 <= count <= D:
        raise UsageError(f"{option('--patches')} {count}: the bundle's images have {D} patches; take from 1 to {D}")
    return PatchRule(patch_scores(bundle, f"{option('--patches')} {count}").order[:count])


def all_patches(bundle: Bundle) -> PatchRule:
    """Make the rule that scores every image by all of its patches."""
    return PatchRule(tuple(range(bundle.info.sampling.patches)))


def early_rule(bundle: Bundle, precision: str, threshold: float, risk: float) -> PatchRule:
    """Make the rule that keeps images with at least a score, and changes at most a share `risk` of all decisions.

    Of each calibration image it is known how far its scores by k patches were on the wrong side of the threshold.
    In units of sqrt(1/k - 1/D), by which means of k out of D spread, margins are as wide as it takes for so few images
    to be further on the wrong side that, with a confidence of 95%, at most `risk` of all such images are. The same
    holds for thresholds nearby, of which the widest margins are taken.

    Args:
        bundle: with a calibration.
        precision: which of its graphs scores.
        threshold: images with at least this score are kept.
        risk: the share of decisions that may differ from those by all patches.

    Raises:
        BundleError: the bundle has no calibration, or not of enough images for this risk.
    """
    calibration = patch_scores(bundle, option("--keep-above", threshold))
    scores = calibration.scores.get(precision)
    if scores is None:
        raise BundleError(f"{bundle.shown}: is not calibrated in {precision}: calibrate it with pscr-engine calibrate")
    found = _margins(scores, threshold, risk)
    if found is None:
        raise BundleError(
            f"{bundle.shown}: is calibrated on {len(scores)} images, and {option('--risk')} {risk:g} takes at least "
            f"{needed(risk)} (for {CONFIDENCE:.0%} confidence): calibrate it on more, or allow a larger risk"
        )
    margin, reach = found
    # Wider by more than rounding takes away: the calibration image that a margin just reaches stays within it.
    scale = spread(scores.shape[1]) * (1 + 1e-12)
    return PatchRule(calibration.order, threshold, margin * scale, reach * scale)


def spread(patches: int) -> NDArray[np.float64]:
    """Return sqrt(1/k - 1/D) for k = 1 ... D - 1, float64 [D - 1]: how means of k out of D values spread."""
    return np.sqrt(1 / np.arange(1, patches) - 1 / patches)


def _margins(scores: NDArray[np.float32], threshold: float, risk: float) -> tuple[float, float] | None:
    """Return how wide margins, and intervals around scores, must be, in units of `spread`; None if nothing shows it."""
    partial, whole = scores[:, :-1].astype(np.float64), scores[:, -1:].astype(np.float64)
    scale = spread(scores.shape[1])
    margins = []
    for near in threshold + _NEARBY * float(whole.std()):
        wrong = (partial >= near) != (whole >= near)
        beyond = np.where(wrong, np.abs(partial - near) / scale, 0.0).max(axis=1, initial=0.0)
        margins.append(limit(beyond, risk))
    off = (np.abs(partial - whole) / scale).max(axis=1, initial=0.0)
    reach, found = limit(off, risk), [margin for margin in margins if margin is not None]
    return (max(found), reach) if found and reach is not None else None


def patch_scores(bundle: Bundle, what: str) -> PatchScores:
    """Return a bundle's calibration; raises BundleError if it has none, and `what` needs one."""
    if bundle.patch_scores is None:
        raise BundleError(
            f"{bundle.shown}: has no calibration, which {what} needs: make one with pscr-engine calibrate, from a few "
            "hundred images like those to be scored"
        )
    return bundle.patch_scores
