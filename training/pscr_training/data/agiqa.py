"""Readers of AGIQA-1K (arXiv 2303.12618) and AGIQA-3K (arXiv 2306.04717), as their authors publish them."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from zipfile import BadZipFile

from pscr_engine.errors import DatasetError

from .labelled import Item, Labelled, image_folder, listed, number, raise_faults, require_file

_1K_FOLDERS = ("file", "image", "images", "img", ".")
_3K_FOLDERS = ("image", "img", "images", ".")
_3K_LABELS = {"quality": "mos_quality", "alignment": "mos_align"}


def agiqa_1k(root: Path, label: str = "quality") -> Labelled:
    """Read AGIQA-1K: `AIGC_MOS_Zscore.xlsx` (columns Image, Prompt, MOS) and the images in `file/`.

    A name that is listed twice with different labels is left out: either label may be wrong. The other rows
    keep their numbers, and so the splits are the authors'.

    Raises:
        DatasetError: the list is missing or malformed.
    """
    if label != "quality":
        raise DatasetError(f"agiqa-1k has the label quality, no {label!r}")
    source = require_file(root / "AIGC_MOS_Zscore.xlsx", "the labels of AGIQA-1K")
    rows = _sheet(source)
    faults: list[str] = []
    labels: dict[str, set[float]] = defaultdict(set)
    read = []
    for row, (name, prompt, value) in enumerate(rows):
        mos = number(value, f"row {row + 2}, {name}", faults)
        read.append((row, str(name), str(prompt), mos))
        labels[str(name)].add(mos)
    raise_faults(source, faults)
    doubtful = sorted(name for name, seen in labels.items() if len(seen) > 1)
    folder = image_folder(root, _1K_FOLDERS, read[0][1]) if read else root
    items, used = [], set()
    for row, name, prompt, mos in read:
        if name not in doubtful and name not in used:
            used.add(name)
            items.append(Item(row, name, folder / name, mos, prompt))
    notes = [
        f"left out {name}: it is listed with labels {listed([f'{x:g}' for x in sorted(labels[name])])}"
        for name in doubtful
    ]
    return Labelled("agiqa-1k", label, items, len(rows), (0.0, 5.0), 4, notes)


def _sheet(source: Path) -> list[tuple[object, ...]]:
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        from pscr_engine.errors import MissingDependencyError

        raise MissingDependencyError("openpyxl", "reading AGIQA-1K", "cpu,export,train") from None
    try:
        with source.open("rb") as file:  # openpyxl would leave it open
            header, *rows = load_workbook(file, read_only=True).worksheets[0].iter_rows(values_only=True)
    except (InvalidFileException, BadZipFile, OSError, KeyError, ValueError) as error:
        raise DatasetError(f"{source}: not a spreadsheet ({error})") from error
    try:
        columns = [list(header).index(name) for name in ("Image", "Prompt", "MOS")]
    except ValueError:
        raise DatasetError(f"{source}: the first row should name Image, Prompt and MOS, not {list(header)}") from None
    return [tuple(row[column] for column in columns) for row in rows if any(value is not None for value in row)]


def agiqa_3k(root: Path, label: str = "quality") -> Labelled:
    """Read AGIQA-3K: `data.csv` and the images beside it, in `image/`, `img/` or `images/`, or in the same folder.

    Raises:
        DatasetError: the list is missing or malformed, or has no such label.
    """
    if label not in _3K_LABELS:
        raise DatasetError(f"agiqa-3k has the labels {' and '.join(_3K_LABELS)}, no {label!r}")
    source = require_file(root / "data.csv", "the labels of AGIQA-3K")
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        lacking = {"name", "prompt", _3K_LABELS[label]} - set(reader.fieldnames or ())
        if lacking:
            raise DatasetError(f"{source}: no column {', '.join(sorted(lacking))}; is this AGIQA-3K's data.csv?")
        rows = list(reader)
    faults: list[str] = []
    folder = image_folder(root, _3K_FOLDERS, rows[0]["name"]) if rows else root
    items = [
        Item(
            row,
            value["name"],
            folder / value["name"],
            number(value[_3K_LABELS[label]], f"line {row + 2}, {value['name']}", faults),
            value["prompt"],
        )
        for row, value in enumerate(rows)
    ]
    raise_faults(source, faults)
    return Labelled("agiqa-3k", label, items, len(rows), (0.0, 5.0), 5)
