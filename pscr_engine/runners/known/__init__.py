"""What earlier runs have scored, and how a run takes results over from them."""

from .known_runs import KnownRuns, KnownSetup, count_taken
from .take_over import KnownImages

__all__ = ["KnownImages", "KnownRuns", "KnownSetup", "count_taken"]
