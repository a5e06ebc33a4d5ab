"""Keeps copies of one image file out of more than one part of a split."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from pscr_engine.atomic import sha256_of

from .labelled import Item
from .splits import Split


class Separated(NamedTuple):
    """A split no two parts of which hold copies of one file, and what was left out for that.

    Args:
        split: the split without the items left out.
        left_out: items of the training or validation images that are copies of a test or validation image.
    """

    split: Split
    left_out: list[Item]


def separate_duplicates(parts: Split) -> Separated:
    """Leave out training images whose file is a copy of a validation or test image's, and validation ones likewise.

    The test images stay as the split's rule has them, so that figures compare with others' for the same rule.

    Raises:
        OSError: a file can't be read.
    """
    digests = _digests_of_possible_copies(parts)
    test = {digests[item.file] for item in parts.test if item.file in digests}
    val = [item for item in parts.val if digests.get(item.file) not in test]
    kept = test | {digests[item.file] for item in val if item.file in digests}
    train = [item for item in parts.train if digests.get(item.file) not in kept]
    remaining = {item.row for item in (*train, *val)}
    left_out = [item for item in (*parts.train, *parts.val) if item.row not in remaining]
    return Separated(Split(train, val, parts.test), left_out)


def _digests_of_possible_copies(parts: Split) -> dict[Path, str]:
    """Compute the SHA-256 of every file that has the size of another: only those can be copies."""
    by_size: dict[int, set[Path]] = defaultdict(set)
    for item in (*parts.train, *parts.val, *parts.test):
        by_size[item.file.stat().st_size].add(item.file)
    return {file: sha256_of(file) for files in by_size.values() if len(files) > 1 for file in files}
