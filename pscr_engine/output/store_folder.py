"""An output folder in an object store. See `pscr_engine.output.folder.Folder`."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import IO

from ..stores import objects
from ..stores.client import require_obstore
from ..stores.uri import StorePath
from .lease import LEASES, Lease, claim
from .shard import Shard


class StoreFolder:
    """Objects below a prefix. A put makes an object appear whole; there are no half files."""

    readers = 16

    def __init__(self, place: StorePath) -> None:
        self.place = place

    def make(self) -> None:
        """See `Folder`. Prefixes need no making."""
        require_obstore()

    def names(self) -> list[str]:
        """See `Folder`. What is further below has a "/" in its name."""
        names = [self.place.relative(found.path) for found in objects.listed(self.place)]
        return [name for name in names if not name.startswith(f"{LEASES}/")]

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        return objects.read(self.place / name)

    def open(self, name: str) -> IO[bytes]:
        """See `Folder`. Parts are small: one request is faster than several ranges."""
        return io.BytesIO(self.read(name))

    def write(self, name: str, content: Callable[[IO[bytes]], object]) -> None:
        """See `Folder`."""
        buffer = io.BytesIO()
        content(buffer)
        objects.put(self.place / name, buffer.getvalue())

    def create(self, name: str, data: bytes) -> bool:
        """See `Folder`. Where the store has no conditional put, two at once may both think that they were first."""
        if objects.look(self.place / name) is not None:
            return False
        return objects.put_where_possible(self.place / name, data, "new")

    def remove(self, names: Sequence[str]) -> None:
        """See `Folder`."""
        if names:
            objects.remove([self.place / name for name in names[:-1]])
            objects.remove([self.place / names[-1]])

    def tidy(self, shard: Shard) -> None:
        """See `Folder`."""

    def lock(self, shard: Shard) -> Lease:
        """See `Folder`."""
        return claim(self.place, shard)
