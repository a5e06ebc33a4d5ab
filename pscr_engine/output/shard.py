"""A share of a run: which chunks are this process's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UsageError, option

_SHARD = re.compile(r"(\d{1,7})/(\d{1,7})")


@dataclass(frozen=True, slots=True)
class Shard:
    """The chunks whose index leaves the remainder `index` when divided by `count`.

    Args:
        index: this share's number, from 0, as Slurm and Kubernetes count.
        count: how many shares there are.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"{option('--shard')} {self}: shards are counted from 0, so {max(1, self.count)} of them are "
                f"0/{max(1, self.count)} to {max(0, self.count - 1)}/{max(1, self.count)}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse a shard that is written "i/n".

        Raises:
            UsageError: it isn't written so, or i is not below n.
        """
        match = _SHARD.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"{option('--shard')} {text}: write it as i/n, 0/8 to 7/8 for example")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def owns(self, chunk: int) -> bool:
        """Tell whether a chunk is this shard's."""
        return chunk % self.count == self.index

    def rows(self, total: int, chunk_rows: int) -> int:
        """Return how many of a manifest's `total` rows are this shard's."""
        whole, rest = divmod(total, chunk_rows)
        chunks = len(range(self.index, whole, self.count))
        return chunks * chunk_rows + (rest if self.owns(whole) else 0)


WHOLE = Shard()
"""A run without shards."""
