"""The command `pscr-engine report`: make a page of a run."""

from __future__ import annotations

from typing import Any

import click

from ..stores.uri import Place
from . import logs
from .parameters import default_option, moved_manifest_option, out_option, score_option, to_place


@click.command()
@click.argument("scores", default="scores", metavar="[SCORES]", callback=to_place)
@out_option("report.html", "The page to write. An earlier report is replaced, any other file is not.")
@score_option()
@click.option("--by", metavar="COLUMN", help="Show the scores by group, of this column of the manifest.")
@click.option(
    "--caption", metavar="COLUMN", help="Show this column of the manifest under each image, the prompt perhaps."
)
@click.option(
    "--compare",
    metavar="OTHER",
    callback=lambda context, parameter, value: None if value is None else to_place(context, parameter, value),
    help="Another run over the same manifest: show what has changed since.",
)
@default_option("--images", 12, "How many images each gallery has, 0 to 100.")
@moved_manifest_option()
def report(scores: Place, **settings: Any) -> None:
    """Make a page of a run: scores, best and worst images, failures, speed.

    SCORES is the folder that pscr-engine score wrote; an unfinished run is shown as far as it is. The page is
    one HTML file that needs no network: distribution and quantiles, a slider that says how many images a
    threshold keeps, score_std against score, the best, worst, median and most uncertain images, failures by
    reason, what ran and how fast. A run with several bundles has a page for each of its scores.

    \b
    Examples:
      pscr-engine report scores/
      pscr-engine report scores/ --by model --caption prompt
      pscr-engine report scores/ --compare scores-of-last-week/
    """
    from ..report.report import ReportConfig
    from ..report.report import report as make_report

    config = ReportConfig(scores, **settings)
    done = make_report(config)
    state = "" if done.complete else ", unfinished"
    logs.result(
        f"{done.rows:,} rows, {done.scored:,} with a score{state}\n{config.out}: {done.size / 1e6:.1f} MB, "
        "open it in a browser"
    )
