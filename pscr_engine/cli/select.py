"""The command `pscr-engine select`: keep a run's best images."""

from __future__ import annotations

from pathlib import Path

import click

from ..selection.choose import GroupChoice
from ..selection.rule import Rule, Top
from ..selection.select import Selected
from ..selection.select import select as select_rows
from ..statistics.float_order import shortest
from ..stores.uri import Place
from . import logs
from .parameters import moved_manifest_option, out_option, score_option, to_place

# Groups that are listed on stdout.
_LISTED = 20


@click.command()
@click.argument("scores", default="scores", metavar="[SCORES]", callback=to_place)
@click.option("--top", metavar="N|P%", help="Keep the N best images, or the best P percent.")
@click.option("--min-score", type=float, help="Only images with at least this score.")
@click.option("--max-std", type=float, help="Only images whose score_std is at most this.")
@click.option("--kept", is_flag=True, help="Only images that score --keep-above has decided to keep.")
@score_option()
@click.option("--per-group", metavar="COLUMN", help="Apply --top to each group of this manifest column by itself.")
@out_option(
    "kept.parquet",
    "The table to write: .parquet, .csv, .tsv or .jsonl. An earlier selection is replaced, any other file is not.",
)
@moved_manifest_option()
@click.option("--allow-unfinished", is_flag=True, help="Select from what is there of a run that isn't complete.")
@click.option("--dry-run", is_flag=True, help="Only say how many images would be kept.")
def select(
    scores: Place,
    top: str | None,
    min_score: float | None,
    max_std: float | None,
    kept: bool,
    score: str | None,
    per_group: str | None,
    out: Path,
    manifest: str | None,
    allow_unfinished: bool,
    dry_run: bool,
) -> None:
    """Keep the best images of a run: a table with the manifest's columns.

    SCORES is the folder that pscr-engine score wrote. The table has the kept rows in the manifest's order,
    with all columns of the manifest and then score, score_std and row; a column of the manifest with one of
    these names becomes manifest_score and so on. For folders, globs and shards it is path (and id) instead.

    Of a run with several bundles, --score says which of its scores decides; the table has all of them.

    --min-score and --max-std say which images take part, --top keeps the best of these. Quantiles are exact;
    of equal scores, those of smaller rows are kept.

    \b
    Examples:
      pscr-engine select scores/ --top 10%
      pscr-engine select scores/ --min-score 3.2 --out good.csv
      pscr-engine select scores/ --per-group model --top 1000
      pscr-engine select decided/ --kept
    """
    rule = Rule(None if top is None else Top.parse(top), min_score, max_std, per_group, score, kept)
    place = None if dry_run else out
    selected = select_rows(scores, rule, place, manifest=manifest, allow_unfinished=allow_unfinished)
    lines = _summary(selected, rule)
    if selected.columns is not None:
        lines.append(f"{out}: {', '.join(selected.columns)}")
    logs.result("\n".join(lines))


def _summary(selected: Selected, rule: Rule) -> list[str]:
    choice = selected.choice
    share = f" ({choice.kept / choice.scored:.2%})" if choice.scored else ""
    unscored = f"; {choice.rows - choice.scored:,} more have no score" if choice.rows > choice.scored else ""
    head = f"kept {choice.kept:,} of {choice.scored:,} scored images{share}{unscored}"
    if selected.labels is None:
        return [f"{head}\n{_threshold(choice.groups[0], rule)}"]
    biggest = sorted(zip(selected.labels, choice.groups, strict=True), key=lambda pair: -pair[1].taking_part)
    width = max((len(label) for label, _ in biggest[:_LISTED]), default=0)
    lines = [head, f"by {rule.group_column}, {len(biggest):,} groups:"]
    lines += [
        f"  {label:<{width}}  {group.kept:,} of {group.taking_part:,}: {_threshold(group, rule)}"
        for label, group in biggest[:_LISTED]
    ]
    if len(biggest) > _LISTED:
        lines.append(f"  and {len(biggest) - _LISTED:,} smaller groups")
    return lines


def _threshold(group: GroupChoice, rule: Rule) -> str:
    if group.threshold is None:
        return "nothing to keep"
    if rule.kept:
        return "decision: keep"
    ties = ""
    if group.kept_at_threshold < group.at_threshold:
        ties = f" (of {group.at_threshold:,} with exactly this score, the first {group.kept_at_threshold:,} by row)"
    return f"{rule.score or 'score'} >= {shortest(group.threshold)}{ties}"
