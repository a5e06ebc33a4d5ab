"""Pack archives, and cut them into pieces that fit into parts of limited size."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

LARGEST_PART = 60 * 2**20
_PIECE = 8 * 2**20
_OVERHEAD = 2**18  # script and list
SCRIPT = Path(__file__).parent / "first_contact.py"


def compress(folder: Path, target: Path, preset: int = 9) -> Path:
    """Pack a folder's content into a .tar.xz file, and return the file."""
    # typeshed takes a level from 0 to 9 for this, and no number that may be larger
    with tarfile.open(target, "w:xz", preset=preset) as archive:  # type: ignore[call-overload]
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return target


def make_parts(archives: dict[str, Path], out: Path, facts: dict[str, Any], largest: int = LARGEST_PART) -> list[Path]:
    """Spread archives over folders, each with the script and the list of all pieces.

    Args:
        archives: name → file, in the order in which they are needed.
        out: folder to make.
        facts: further entries of the list, kit.json.
        largest: bytes of a part at most, script and list included.

    Returns:
        The parts' folders.
    """
    listed: dict[str, list[dict[str, Any]]] = {}
    piece = min(_PIECE, (largest - _OVERHEAD) // 2)
    number, free = 1, largest - _OVERHEAD
    for name, file in archives.items():
        data = file.read_bytes()
        pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
        for index, content in enumerate(pieces):
            if len(content) > free:
                number, free = number + 1, largest - _OVERHEAD
            free -= len(content)
            named = f"{name}.tar.xz.{index + 1:02}of{len(pieces):02}"
            folder = out / f"part-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / named).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            entry = {"file": named, "part": number, "bytes": len(content), "sha256": digest}
            listed.setdefault(name, []).append(entry)
    parts = [out / f"part-{index}" for index in range(1, number + 1)]
    for folder in parts:
        shutil.copy(SCRIPT, folder)
        (folder / "kit.json").write_text(json.dumps({**facts, "archives": listed}, indent=1) + "\n")
    return parts
