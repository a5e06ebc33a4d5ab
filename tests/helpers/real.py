"""Real labelled images where the project's shared data is at hand, made-up ones otherwise."""

from __future__ import annotations

import csv
from pathlib import Path

from pscr_engine.synthetic import write_images

AGIQA_3K = Path(__file__).parents[3] / "shared" / "data" / "agiqa-3k"


def has_agiqa_3k() -> bool:
    """Say whether AGIQA-3K's images are beside the checkout."""
    return (AGIQA_3K / "images").is_dir()


def few_dozen(folder: Path, count: int = 48) -> Path:
    """List some labelled images in `labels.csv`: path, mos and prompt. Real images are listed where they are."""
    listed = folder / "labels.csv"
    if not has_agiqa_3k():
        made = write_images(folder / "made", "labels.csv", count, 3)
        rows = [
            {"path": f"made/{row['path']}", "mos": row["mos"], "prompt": str(index // 2)}
            for index, row in enumerate(csv.DictReader(made.read_text("utf-8").splitlines()))
        ]
    else:
        with (AGIQA_3K / "data.csv").open(newline="") as file:
            all_rows = list(csv.DictReader(file))
        rows = [
            {"path": str(AGIQA_3K / "images" / row["name"]), "mos": row["mos_quality"], "prompt": row["prompt"]}
            for row in all_rows[:: len(all_rows) // count][:count]
        ]
    with listed.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "mos", "prompt"])
        writer.writeheader()
        writer.writerows(rows)
    return listed
