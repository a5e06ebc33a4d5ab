"""Draws scores against labels, as a picture."""

from __future__ import annotations

from pathlib import Path

from pscr_engine.errors import MissingDependencyError, UsageError, option

from .evaluate import Evaluation
from .metrics import logistic_fit


def check_plot(file: Path) -> None:
    """Check that a scatter plot can be drawn, before there is anything to draw.

    Raises:
        UsageError: the file's name ends neither in .svg nor in .png.
        MissingDependencyError: Matplotlib is not installed.
    """
    if file.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"{option('--plot')} {file}: name a file that ends in .svg or .png")
    try:
        import matplotlib.figure  # noqa: F401 - whether it is there
    except ImportError:
        raise MissingDependencyError("matplotlib", "the scatter plot", "cpu,export,train") from None


def scatter(evaluation: Evaluation, file: Path) -> None:
    """Write a scatter plot, with the fitted logistic, as SVG or PNG.

    Raises:
        UsageError, MissingDependencyError: as `check_plot`.
    """
    check_plot(file)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    scores, labels, metrics = evaluation.scores, evaluation.labels, evaluation.metrics
    axes.scatter(scores, labels, s=10, alpha=0.5, linewidths=0)
    order = scores.argsort()
    axes.plot(scores[order], logistic_fit(scores, labels)[order], linewidth=1.5, color="black")
    axes.set_xlabel("score")
    axes.set_ylabel("label")
    axes.set_title(f"{evaluation.data}: SRCC {metrics.srcc.value:.3f}, PLCC {metrics.plcc_logistic.value:.3f}")
    figure.savefig(file, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)
