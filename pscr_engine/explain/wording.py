"""What page, picture and terminal say alike, and in which colours."""

from __future__ import annotations

import math

from ..bundle import Bundle
from .findings import Findings

# Okabe and Ito's blue and vermilion, and a grey between: told apart by colour-blind people, too.
_WORSE, _SAME, _BETTER = (213, 94, 0), (150, 150, 150), (0, 114, 178)
# Differences smaller than this share of the label range are not shown in full colour, however small all are.
_LEAST_SCALE = 0.01


def printable(text: str) -> str:
    """`text` on one line: what can't be shown, half of a surrogate pair for example, becomes a question mark."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def elided(text: str, length: int) -> str:
    """At most `length` characters of `text`: from the middle, where paths have least to say, some are left out."""
    if len(text) <= length:
        return text
    head = length // 3
    return f"{text[:head]}…{text[len(text) - (length - head - 1) :]}"


class Numbers:
    """Scores with as many digits as the label range wants: about a thousandth of it."""

    def __init__(self, bundle: Bundle) -> None:
        low, high = bundle.info.label_range
        self._digits = min(max(3 - math.floor(math.log10(high - low)), 0), 9) if high > low else 3

    def score(self, value: float) -> str:
        """For example 3.421."""
        return f"{value:z.{self._digits}f}".replace("-", "\N{MINUS SIGN}")

    def difference(self, value: float) -> str:
        """For example +0.035, or ±0.000."""
        shown = f"{value:+z.{self._digits}f}"
        return "±" + shown[1:] if float(shown) == 0 else shown.replace("-", "\N{MINUS SIGN}")


def distance(value: float) -> str:
    """Of features: three significant digits, or more of a large one."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:,.0f}"


def colour_scale(findings: Findings) -> float:
    """The difference from the image's score that is shown in full colour."""
    low, high = findings.bundle.info.label_range
    differences = [abs(patch.score - findings.score) for patch in findings.patches]
    return max(*differences, _LEAST_SCALE * (high - low), 1e-9)


def colour(difference: float, scale: float) -> str:
    """From vermilion, worse than the image, by way of grey to blue, better; as #rrggbb."""
    end = _BETTER if difference > 0 else _WORSE
    share = min(abs(difference) / scale, 1)
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(_SAME, end, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def heading(findings: Findings, numbers: Numbers) -> str:
    """The two scores, to be told apart at a glance."""
    score = f"score {numbers.score(findings.score)}"
    if len(findings.patches) == 1:
        return score
    return f"{score}, mean of the patch scores {numbers.score(findings.mean_patch_score)}"


def about_patches(findings: Findings, numbers: Numbers) -> str:
    """What a patch's score is, and what it is not."""
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
    """What near, and what delta means."""
    M = findings.bundle.exemplars.count
    return (
        f"Of {M:,} exemplars, those at the smallest Euclidean distance of features; the median distance of all is "
        f"{distance(findings.median_distance)}. Delta is the predicted difference, image minus exemplar. Label plus "
        f"delta is the image's score against one exemplar; its mean over all {M:,} is the image's score."
    )


def about_model(findings: Findings) -> str:
    """What computed it."""
    info, M = findings.bundle.info, findings.bundle.exemplars.count
    D, P = info.sampling.patches, info.patch_size
    patches = "1 patch" if D == 1 else f"{D} patches"
    return (
        f"{info.backbone}, {info.sampling.name}: {patches} of {P}×{P} pixels; {M:,} exemplars; "
        f"{findings.precision} on {findings.device}; bundle {findings.bundle.digest[:12]}"
    )
