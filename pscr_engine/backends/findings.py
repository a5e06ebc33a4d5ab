"""Keep what was measured on this host in the user's cache, so that it is measured once."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..atomic import atomic_file
from ..host import cache_folder, processor


class Finding:
    """One measured fact, which holds for this processor and for what it depends on.

    Args:
        kind: what was measured; also the folder's name in the cache.
        depends_on: what the fact is about and what it depends on: a bundle's digest, versions, numbers of threads.
    """

    def __init__(self, kind: str, depends_on: Mapping[str, Any]) -> None:
        self._depends_on = {**depends_on, "processor": processor()}
        name = hashlib.sha256(json.dumps(self._depends_on, sort_keys=True).encode()).hexdigest()[:32]
        self._file = _folder(kind) / f"{name}.json"

    def read(self) -> dict[str, Any] | None:
        """Return the fact; None if it has not been measured, or can't be read."""
        try:
            value = json.loads(self._file.read_text())
            found: dict[str, Any] = value["found"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return found if value["depends_on"] == self._depends_on else None

    def keep(self, found: Mapping[str, Any]) -> bool:
        """Write the fact; return False where the cache can't be written."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(self._file) as unfinished:
                unfinished.write_text(json.dumps({"depends_on": self._depends_on, "found": found}, indent=2) + "\n")
        except OSError:
            return False
        return True

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold other processes of this user off while this one measures; they read the result afterwards."""
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = (self._file.parent / ".lock").open("a")
        except OSError:  # the cache can't be written: measure all the same
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def findings(kind: str) -> list[dict[str, Any]]:
    """Return all facts of a kind that are kept on this host, each with what it depends on."""
    out = []
    for file in sorted(_folder(kind).glob("*.json")):
        try:
            value = json.loads(file.read_text())
            out.append({"depends_on": dict(value["depends_on"]), "found": dict(value["found"])})
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return out


def _folder(kind: str) -> Path:
    return cache_folder() / kind
