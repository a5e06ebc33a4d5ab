"""Which process did how much of a run: records beside the parts, until `_SUCCESS` holds them all."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import PscrError
from .folder import Folder

log = logging.getLogger("pscr_engine")

# Without an extension: some readers guess a folder's format by the most frequent one.
_RECORD = re.compile(r"_process-[0-9a-f]{16}")
_MOST = 1000
_EARLIER = "earlier"

Share = Mapping[str, Any]
"""What a process did: id, host, started, images, seconds and more. Images that were scored again count again."""


def is_record(name: str) -> bool:
    """Tell whether a file's name is that of a process's record."""
    return _RECORD.fullmatch(name) is not None


def shares_of(success: Mapping[str, Any] | None) -> list[Share]:
    """Return the shares that `_SUCCESS` holds; for one of an earlier version, that of its last process."""
    if success is None:
        return []
    shares = success.get("processes")
    if isinstance(shares, list):
        return [share for share in shares if _is_share(share)]
    known = {name: success[name] for name in ("seconds", "startup_seconds", "devices", "finished") if name in success}
    images = success.get("scored_by_last_run")
    share = {"id": f"{_EARLIER} {success.get('finished')}", "images": images, **known}
    return [share] if images and _is_share(share) else []


def _is_share(share: object) -> bool:
    return (
        isinstance(share, dict)
        and "id" in share
        and all(isinstance(share.get(name, 0), int | float) for name in ("images", "seconds"))
        and isinstance(share.get("processes", 1), int)
    )


def write_record(folder: Folder, key: str, shares: Sequence[Share]) -> None:
    """Write the record of the process that is called `key`; a folder that refuses is worth a warning."""
    try:
        content = (json.dumps({"processes": shares}) + "\n").encode()
        folder.write(f"_process-{key}", lambda file: file.write(content))
    except (OSError, PscrError) as error:
        log.warning("%s: can't note what this process has done (%s)", folder.location, error)


def read_records(folder: Folder, names: Iterable[str]) -> list[Share]:
    """Read the shares in those of the files that are records."""
    shares: list[Share] = []
    for name in filter(is_record, names):
        try:
            shares += shares_of(json.loads(folder.read(name)))
        except FileNotFoundError:  # a shard that finished at the same time has put it into `_SUCCESS`
            continue
        except (ValueError, AttributeError):
            log.warning("%s: damaged; what that process did is not counted", folder.location / name)
    return shares


def united(shares: Iterable[Share]) -> list[Share]:
    """Return each process's share once, the last one given, in order of their starts; many old ones as one."""
    by_id = {str(share["id"]): share for share in shares}
    ordered = sorted(by_id.values(), key=lambda share: str(share.get("started", "")))
    if len(ordered) <= _MOST:
        return ordered
    old, rest = ordered[: 1 - _MOST], ordered[1 - _MOST :]
    return [{"id": _EARLIER, "processes": sum(share.get("processes", 1) for share in old), **totals(old)}, *rest]


def totals(shares: Iterable[Share]) -> dict[str, Any]:
    """Add up the images and seconds of processes."""
    shares = list(shares)
    return {name: round(sum(share.get(name) or 0 for share in shares), 3) for name in ("images", "seconds")}


def count_processes(shares: Iterable[Share]) -> int:
    """Count the processes."""
    return sum(share.get("processes", 1) for share in shares)
