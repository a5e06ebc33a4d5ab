"""Brace ranges in names of shards, as WebDataset's users write them: `shard-{00000..00099}.tar`."""

from __future__ import annotations

import re

from ..errors import ManifestError
from ..stores.uri import Place
from .webdataset import is_shard

_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")
_MOST = 1_000_000


def has_range(text: str) -> bool:
    """Tell whether there is a brace range in a name."""
    return _RANGE.search(text) is not None


def expanded(text: str) -> list[str]:
    """Return the names of shards that a name with brace ranges stands for, in their order.

    Raises:
        ManifestError: they are no shards, a range runs backwards, or they are more than a million.
    """
    if not is_shard(text):
        raise ManifestError(f"{text}: brace ranges are for tar shards; name other files with a quoted glob")
    names = [""]
    rest = text
    while (match := _RANGE.search(rest)) is not None:
        first, last = match.groups()
        count = int(last) - int(first) + 1
        if count < 1 or count * len(names) > _MOST:
            raise ManifestError(f"{text}: the range {match[0]} {'is too long' if count > 0 else 'runs backwards'}")
        # As the shell: zeros at the front are kept.
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        middle = [f"{rest[: match.start()]}{number:0{width}d}" for number in range(int(first), int(last) + 1)]
        names, rest = [name + each for name in names for each in middle], rest[match.end() :]
    return [name + rest for name in names]


def no_shard(pattern: Place, missing: object) -> ManifestError:
    """Return the error for a shard that a brace range names and that isn't there."""
    return ManifestError(f"{pattern}: there is no {missing}; every shard that a brace range names must be there")
