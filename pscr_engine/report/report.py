"""`report`, which makes one HTML file from the folder of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..atomic import atomic_file, check_output_file
from ..errors import PscrError, UsageError, option
from ..html import require_jinja2
from ..manifests.arrow_types import as_text
from ..output.run_groups import read_groups
from ..output.run_reader import RunReader
from ..stores.uri import Place
from .comparison import Comparison, compare
from .formatting import Shown
from .gather import Gathered, gather
from .group_table import MOST_GROUPS
from .page import GENERATOR, Content, render
from .thumbnails import make_thumbnails

MOST_IMAGES = 100


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """The settings of `pscr-engine report`.

    Args:
        scores: folder of the run, complete or not.
        out: the HTML file.
        manifest: where the manifest is now; None for where it was.
        by: column of the manifest to group scores by; None for no groups.
        caption: column of the manifest to show under each image; None for none.
        compare: folder of another run over the same rows; None for none.
        images: how many images each gallery has.
        score: column of the scores that the page is about, in a run of several bundles; None for the only one.
    """

    scores: Place
    out: Path = Path("report.html")
    manifest: str | None = None
    by: str | None = None
    caption: str | None = None
    compare: Place | None = None
    images: int = 12
    score: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.images <= MOST_IMAGES:
            raise UsageError(f"{option('--images')} {self.images}: must be from 0 to {MOST_IMAGES}")


@dataclass(frozen=True, slots=True)
class Reported:
    """What `report` tells its caller about the run and the page.

    Args:
        rows, scored: how many rows the parts have, and how many of them a score.
        complete: whether the run is complete.
        size: size of the page in bytes.
    """

    rows: int
    scored: int
    complete: bool
    size: int


def report(config: ReportConfig) -> Reported:
    """Write the page about a run, in memory that doesn't grow with its rows, except 16 bytes per row to compare runs.

    Raises:
        UsageError: a run has several scores, and none is named.
        OutputError: a folder is no run, a part is damaged, the runs don't fit, or `out` is taken.
        ManifestError: a column is asked for, and the manifest or the column isn't there.
        PscrError: the page can't be written.
    """
    require_jinja2()
    run = RunReader.open(config.scores)
    score = run.score(config.score)
    other = None if config.compare is None else RunReader.open(config.compare)
    check_output_file(config.out, "report", _is_report)
    columns = [name for name in (config.by, config.caption) if name is not None]
    manifest = run.open_table(columns, config.manifest) if columns else None
    comparison = None if other is None else compare(run, other, config.images, score)
    groups = None
    if config.by is not None and manifest is not None:
        groups = read_groups(run, manifest, config.by, MOST_GROUPS)
    gathered = gather(run, config.images, groups, score)
    rows = _rows_to_show(gathered, comparison)
    paths = {row: line["path"] for row, line in run.lines(rows, ["path"]).items()}
    for row in rows:  # a row that only the other run has
        paths.setdefault(row, None)
    thumbnails, note = make_thumbnails(run, paths, config.manifest)
    captions: Mapping[int, str | None] = {}
    if config.caption is not None and manifest is not None:
        values = manifest.columns([config.caption]).take(np.array(rows, np.int64)).column(0).combine_chunks()
        captions = dict(zip(rows, as_text(values), strict=True))
    if manifest is not None:
        manifest.check_files_unchanged()
    shown = {row: Shown(paths[row], thumbnails[row], captions.get(row)) for row in rows}
    page = render(Content(run, gathered, shown, score, config.by, comparison, [note] if note else []))
    try:
        with atomic_file(config.out) as temporary:
            temporary.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise PscrError(
            f"{config.out}: can't be written ({error.strerror or error}); choose another {option('--out')}"
        ) from error
    return Reported(gathered.rows, gathered.scored, run.success is not None, config.out.stat().st_size)


def _rows_to_show(gathered: Gathered, comparison: Comparison | None) -> list[int]:
    """List the rows of all galleries, ascending."""
    rows: set[int] = set()
    if gathered.shape is not None:
        for gallery in gathered.shape.galleries.values():
            rows.update(pick.row for pick in gallery)
        rows.update(pick.row for pick in gathered.shape.ladder.values())
    if comparison is not None and comparison.change is not None:
        rows.update(mover.row for mover in (*comparison.change.most_risen, *comparison.change.most_fallen))
    return sorted(rows)


def _is_report(file: Path) -> bool:
    with file.open("rb") as content:
        return f'name="generator" content="{GENERATOR}'.encode() in content.read(4096)
