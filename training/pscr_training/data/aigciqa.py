"""Reader of AIGCIQA2023 (arXiv 2307.00211): 2400 images of 100 prompts by 6 models, 4 each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pscr_engine.errors import DatasetError, MissingDependencyError

from .labelled import Item, Labelled, image_folder, number, raise_faults

_LABELS = {"quality": 1, "authenticity": 2, "correspondence": 3}
_FOLDERS = ("Image/allimg", "allimg", "Image", "images", ".")
_PROMPTS, _PER_PROMPT = 100, 4
_ROWS = 6 * _PROMPTS * _PER_PROMPT


def aigciqa2023(root: Path, label: str = "quality") -> Labelled:
    """Read AIGCIQA2023: `DATA/MOS/mosz{1,2,3}.mat` or `moz{1,2,3}.txt`, and `Image/allimg/0.png` to `2399.png`.

    Image 400·model + 4·prompt + k is the k-th of its model and prompt.

    Raises:
        DatasetError: the labels are missing or malformed, or there is no such label.
    """
    if label not in _LABELS:
        raise DatasetError(f"aigciqa2023 has the labels {', '.join(_LABELS)}, no {label!r}")
    source, values = _labels(root, _LABELS[label])
    if len(values) != _ROWS:
        raise DatasetError(f"{source}: {len(values)} labels, not {_ROWS}")
    folder = image_folder(root, _FOLDERS, "0.png")
    faults: list[str] = []
    items = [
        Item(
            row,
            f"{row}.png",
            folder / f"{row}.png",
            number(value, f"label {row}", faults),
            str(row % (_PROMPTS * _PER_PROMPT) // _PER_PROMPT),
        )
        for row, value in enumerate(values)
    ]
    raise_faults(source, faults)
    return Labelled("aigciqa2023", label, items, _ROWS, (0.0, 100.0), 4)


def _labels(root: Path, which: int) -> tuple[Path, list[object]]:
    folders = (root / "DATA" / "MOS", root / "MOS", root / "DATA", root)
    for folder in folders:
        if (file := folder / f"mosz{which}.mat").is_file():
            return file, _matlab(file)
        for name in (f"moz{which}.txt", f"mosz{which}.txt"):
            if (file := folder / name).is_file():
                return file, list(file.read_text(encoding="utf-8-sig").replace(",", " ").split())
    raise DatasetError(f"{root}: no DATA/MOS/mosz{which}.mat and no moz{which}.txt; they hold AIGCIQA2023's labels")


def _matlab(file: Path) -> list[object]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingDependencyError("scipy", "reading AIGCIQA2023", "cpu,export,train") from None
    try:
        content = loadmat(file)
    except Exception as error:
        raise DatasetError(f"{file}: not a MATLAB file ({error})") from error
    if "MOSz" not in content:
        names = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise DatasetError(f"{file}: no variable MOSz in it ({names})")
    return list(np.asarray(content["MOSz"]).reshape(-1))
