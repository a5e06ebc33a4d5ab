"""What fetching one image can come to."""

from __future__ import annotations

from .trouble import Trouble


class FetchError(Exception):
    """There is no image.

    Args:
        trouble: why.
    """

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


class TooLargeError(Exception):
    """An image is over the limit.

    Args:
        size: bytes, at least.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Room:
    """How many bytes may be held at once. What is larger than all of it gets in if it is the first.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._taken = limit, 0

    def take(self, size: int) -> bool:
        """Whether there was room for so many bytes."""
        if self._taken and self._taken + size > self._limit:
            return False
        self._taken += size
        return True
