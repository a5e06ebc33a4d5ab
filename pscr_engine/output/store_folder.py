"""An output folder in an object store."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import IO

from ..stores import objects
from ..stores.client import require_obstore
from ..stores.uri import StorePath
from .lease import LEASES, Lease, claim, replacing, rival, wait_for_replacing
from .shard import Shard


class StoreFolder:
    """A `Folder` that is a prefix in an object store. A put makes an object appear whole."""

    readers = 16

    def __init__(self, location: StorePath) -> None:
        self.location = location

    def make(self) -> None:
        """Check that obstore is installed; prefixes need no making."""
        require_obstore()

    def names(self) -> list[str]:
        """List the names of all objects below the prefix but leases. What is further below has a "/" in its name."""
        require_obstore()
        names = [self.location.relative(stored.path) for stored in objects.listed(self.location)]
        return [name for name in names if not name.startswith(f"{LEASES}/")]

    def read(self, name: str) -> bytes:
        """Read an object, or raise FileNotFoundError."""
        return objects.read(self.location / name)

    def open(self, name: str) -> IO[bytes]:
        """Open an object for reading, in one request: parts are small, and several ranges would be slower."""
        return io.BytesIO(self.read(name))

    def write(self, name: str, content: Callable[[IO[bytes]], object]) -> None:
        """Put an object with what `content` writes."""
        buffer = io.BytesIO()
        content(buffer)
        objects.put(self.location / name, buffer.getvalue())

    def create(self, name: str, data: bytes) -> bool:
        """Put an object unless there is one; tell whether there was none."""
        # Without conditional puts, two processes at once may both be told that there was none.
        if objects.look(self.location / name) is not None:
            return False
        return objects.put_where_possible(self.location / name, data, "new")

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects that may be there, the last one after all others."""
        if names:
            objects.remove([self.location / name for name in names[:-1]])
            objects.remove([self.location / names[-1]])

    def tidy(self, shard: Shard) -> None:
        """Do nothing: a put leaves nothing half written."""

    def lock(self, shard: Shard, purpose: str = "") -> Lease:
        """Claim a shard with a lease."""
        return claim(self.location, shard, purpose)

    def replacing(self) -> AbstractContextManager[Lease]:
        """Claim to replace what the folder says of its run; waits while another process does so."""
        return replacing(self.location)

    def wait_for_replacing(self) -> None:
        """Wait until no process has the claim of `replacing`."""
        wait_for_replacing(self.location)

    def rival(self, shard: Shard, purpose: str) -> str | None:
        """Return who has another shard, of the same count, for another purpose; None if nobody who is alive."""
        return rival(self.location, shard, purpose)
