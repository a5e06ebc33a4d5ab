"""`select`, which applies a rule to a run and writes the table of the kept images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError, UsageError, option
from ..output.run_groups import read_groups
from ..output.run_reader import RunReader
from ..stores.uri import Place
from .choose import Choice, choose, kept_rows
from .kept_table import check_output, score_fields, source_columns, write_kept
from .rule import Rule
from .table_files import check_columns

MOST_GROUPS = 1_000_000
"""How many groups `--per-group` may have: so many take some hundred megabytes."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What `select` tells its caller about the kept images.

    Args:
        choice: what is kept, by group.
        labels: the groups' values, in the order of `choice.groups`; None without groups.
        columns: columns of the table that was written; None if none was.
    """

    choice: Choice
    labels: list[str] | None
    columns: list[str] | None


def select(
    scores: Place, rule: Rule, out: Path | None, *, manifest: str | None = None, allow_unfinished: bool = False
) -> Selected:
    """Write a table of the images of a run that a rule keeps, in the order of rows, with the manifest's columns.

    Args:
        scores: folder of the run.
        rule: what to keep.
        out: the file to write, .parquet, .csv, .tsv or .jsonl; None to count only.
        manifest: where the manifest is now; None for where it was.
        allow_unfinished: take what is there of an unfinished run.

    Raises:
        UsageError: the run has several scores, and the rule doesn't name one of them; or it has decided already.
        OutputError: the run is unfinished or damaged, or `out` is taken, of no known kind, or can't hold a column.
        ManifestError: the manifest isn't there any more, has changed, or has no such column.
    """
    run = RunReader.open(scores)
    if run.success is None and not allow_unfinished:
        raise OutputError(
            f"{scores}: this run is not complete; finish it with its score command, or take what is there "
            f"with {option('--allow-unfinished', True)}"
        )
    _check_decisions(run, rule)
    by, table, groups = run.score(rule.score), None, None
    if rule.group_column is not None:
        table = run.open_table([rule.group_column], manifest)
    elif run.has_columns and out is not None:
        table = run.open_manifest(manifest)
    if out is not None:
        if (
            table is not None
            and out.exists()
            and any(isinstance(file, Path) and out.samefile(file) for file in table.files)
        ):
            raise OutputError(f"{out}: is the manifest; choose another {option('--out')}")
        check_output(out)
        check_columns(out, source_columns(run, table)[1])
    if table is not None and rule.group_column is not None:
        groups = read_groups(run, table, rule.group_column, MOST_GROUPS)
    choice = choose(run, rule, groups)
    labels = None if groups is None else groups.labels
    if out is None:
        return Selected(choice, labels, None)
    columns, fields = source_columns(run, table)
    facts = {
        "scores": str(scores),
        "identity": run.identity,
        "top": rule.top and str(rule.top.number or f"{rule.top.percent}%"),
        "min_score": rule.min_score,
        "max_std": rule.max_std,
        "per_group": rule.group_column,
        **({"score": by.score} if by.model else {}),
        **({"kept_by_run": run.keep_above} if rule.kept else {}),
        "kept": choice.kept,
    }
    write_kept(out, kept_rows(run, rule, groups, choice, columns), run, table, fields, facts)
    return Selected(choice, labels, [*fields.names, *(field.name for field in score_fields(run))])


def _check_decisions(run: RunReader, rule: Rule) -> None:
    """Raise UsageError if a rule goes by scores that are estimates, or by decisions where there are none."""
    if run.keep_above is None:
        if rule.kept:
            raise UsageError(
                f"{run.path}: this run has decided nothing, {option('--kept', True)} is for runs with "
                f"{option('--keep-above')}: use {option('--min-score')} or {option('--top')}"
            )
    elif rule.top is not None or rule.min_score is not None or rule.max_std is not None:
        raise UsageError(
            f"{run.path}: this run has decided by some of the patches what is kept (from {run.keep_above:g}), so many "
            f"of its scores are estimates: use {option('--kept', True)}, or score without {option('--keep-above')}"
        )
