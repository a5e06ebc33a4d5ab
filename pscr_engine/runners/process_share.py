"""What this process does of a run, noted beside the parts now and then, so that it is known should it be killed."""

from __future__ import annotations

import os
import platform
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from ..output.run_directory import RunDirectory
from ..output.shard import WHOLE
from .progress import RunProgress

_NOTE_SECONDS = 10.0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class ProcessShare:
    """The share of this process.

    Args:
        directory: where it is noted.
        progress: counts what has been committed.
    """

    directory: RunDirectory
    progress: RunProgress
    _id: str = field(default_factory=lambda: secrets.token_hex(8))
    _started: str = field(default_factory=_now)
    _noted: float = field(default_factory=monotonic)

    def so_far(self, seconds: float | None = None) -> dict[str, Any]:
        """Return the images that this process has committed, in `seconds`, or since the first worker was ready."""
        images = self.progress.status.total()
        seconds = monotonic() - self.progress.since if seconds is None else seconds
        shard = {} if self.directory.shard == WHOLE else {"shard": str(self.directory.shard)}
        return {
            "id": self._id,
            "host": platform.node(),
            "pid": os.getpid(),
            **shard,
            "started": self._started,
            "images": images,
            "startup_seconds": round(self.progress.startup_seconds, 3),
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 3) if seconds else None,
        }

    def note_now_and_then(self) -> None:
        """Note the share, if that is some seconds ago."""
        if monotonic() - self._noted >= _NOTE_SECONDS:
            self.note()

    def note(self) -> None:
        """Note the share, if there is any."""
        self._noted = monotonic()
        if self.progress.status.total():
            self.directory.note_process(self.so_far())
