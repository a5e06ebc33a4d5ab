"""Texts and colours that the page, the picture and the terminal have in common."""

from __future__ import annotations

from ..bundle import Bundle
from ..html import ScoreFormat
from .findings import Findings

# Okabe and Ito's blue and vermilion, and a grey between, which colour-blind people can tell apart, too.
_WORSE, _SAME, _BETTER = (213, 94, 0), (150, 150, 150), (0, 114, 178)
# Differences smaller than this share of the label range are not shown in full colour, however small all are.
_LEAST_SCALE = 0.01


def printable(text: str) -> str:
    """Replace each character that can't be shown, a line break or half a surrogate pair for example, by U+FFFD."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def elided(text: str, length: int) -> str:
    """Shorten `text` to at most `length` characters: some of the middle, where paths say least, is left out."""
    if len(text) <= length:
        return text
    head = length // 3
    return f"{text[:head]}…{text[len(text) - (length - head - 1) :]}"


def score_format(bundle: Bundle) -> ScoreFormat:
    """Return the format for a bundle's scores: a thousandth of its label range shows."""
    return ScoreFormat.for_range(*bundle.info.label_range)


def distance(value: float) -> str:
    """Format a distance of features: three significant digits, or a whole number from 1,000."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"


def colour_scale(findings: Findings) -> float:
    """Return the difference from the image's score that is shown in full colour."""
    low, high = findings.bundle.info.label_range
    differences = [abs(patch.score - findings.score) for patch in findings.patches]
    return max(*differences, _LEAST_SCALE * (high - low), 1e-9)


def colour(difference: float, scale: float) -> str:
    """Return a difference's colour, #rrggbb: from vermilion (worse than the image) over grey to blue (better)."""
    end = _BETTER if difference > 0 else _WORSE
    share = min(abs(difference) / scale, 1)
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(_SAME, end, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def heading(findings: Findings, numbers: ScoreFormat) -> str:
    """Write the image's score and, if there are several patches, the mean of their scores."""
    score = f"score {numbers.score(findings.score)}"
    if len(findings.patches) == 1:
        return score
    return f"{score}, mean of the patch scores {numbers.score(findings.mean_patch_score)}"


def about_patches(findings: Findings, numbers: ScoreFormat) -> str:
    """Explain what a patch's score is, and what it is not."""
    D = len(findings.patches)
    if D == 1:
        return "There is one patch: its feature is the image's feature, and its score is the image's score."
    return (
        "Each patch's score is the head applied to that patch's own feature, as if the whole image looked like it. "
        f"The image's score is the head applied to the mean of the {D} features. The head is not linear in that mean, "
        f"so the mean of the patch scores, {numbers.score(findings.mean_patch_score)}, need not equal the image's "
        f"score, {numbers.score(findings.score)}."
    )


def about_exemplars(findings: Findings) -> str:
    """Explain which exemplars are near, and what delta means."""
    M = findings.bundle.exemplars.count
    return (
        f"Of {M:,} exemplars, those at the smallest Euclidean distance of features; the median distance of all is "
        f"{distance(findings.median_distance)}. Delta is the predicted difference, image minus exemplar. Label plus "
        f"delta is the image's score against one exemplar; its mean over all {M:,} is the image's score."
    )


def about_model(findings: Findings) -> str:
    """Describe the model, precision, device and bundle that computed the scores."""
    info, M = findings.bundle.info, findings.bundle.exemplars.count
    D, P = info.sampling.patches, info.patch_size
    patches = "1 patch" if D == 1 else f"{D} patches"
    return (
        f"{info.backbone}, {info.sampling.name}: {patches} of {P}×{P} pixels; {M:,} exemplars; "
        f"{findings.precision} on {findings.device}; bundle {findings.bundle.digest[:12]}"
    )
