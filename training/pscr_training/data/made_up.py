"""Made-up images as a labelled set on disk, for `--dataset synthetic`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from pscr_engine.atomic import atomic_directory
from pscr_engine.errors import DatasetError, option
from pscr_engine.synthetic import generate

from .labelled import Item, Labelled

_LIST, _ABOUT = "labels.csv", "synthetic.json"


def made_up(root: Path, count: int, seed: int, size: int = 512) -> Labelled:
    """Return `count` made-up images: they are made at the first call, and kept in `root`.

    Raises:
        DatasetError: `root` holds something else.
    """
    about = {"count": count, "seed": seed, "size": size}
    if not root.exists():
        with atomic_directory(root) as folder:
            with (folder / _LIST).open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["path", "mos", "degradation", "strength"])
                for index, made in enumerate(generate(count, size=size, seed=seed)):
                    name = f"{index:05d}.png"
                    made.image.save(folder / name, compress_level=1)
                    writer.writerow([name, made.mos, made.degradation, round(made.strength, 4)])
            (folder / _ABOUT).write_text(json.dumps(about))
    try:
        stored = json.loads((root / _ABOUT).read_text())
    except (OSError, ValueError):
        stored = None
    if stored != about:
        raise DatasetError(
            f"{root}: holds other images than {count} made-up ones of seed {seed}; name another {option('--data')}"
        )
    with (root / _LIST).open(newline="") as file:
        items = [
            Item(row, line["path"], root / line["path"], float(line["mos"]), None)
            for row, line in enumerate(csv.DictReader(file))
        ]
    return Labelled("synthetic", "quality", items, count, (0.0, 5.0))
