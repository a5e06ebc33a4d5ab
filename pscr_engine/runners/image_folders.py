"""Notice when a folder of the images goes away during a run, so that its images are not recorded as missing."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import PscrError
from ..records import Query

_WATCHED_FOLDERS = 64

FolderIdentity = tuple[int, int]
"""Device and inode of a folder, which another folder mounted in its place doesn't have."""


def identity_of(folder: str) -> FolderIdentity | None:
    """Return what identifies a folder; None if it isn't there, or if `folder` is ""."""
    try:
        status = Path(folder).stat() if folder else None
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)


class ImageFolders:
    """The folders of a worker's images, as they were when an image was found there.

    Args:
        folder: the manifest's folder.
        identity: what identified it when the run began; None if it wasn't there.
    """

    def __init__(self, folder: str, identity: FolderIdentity | None) -> None:
        self._known = {} if identity is None else {folder: identity}
        self._watched: dict[str, FolderIdentity] = {}

    def watch(self, query: Query) -> None:
        """Remember the folder of an image that was read: paths need not lead below the manifest's folder."""
        if query.ok and query.location is not None and len(self._watched) < _WATCHED_FOLDERS:
            folder = os.path.dirname(query.location) or "."  # noqa: PTH120 - Path would be slow here
            if folder not in self._watched and (identity := identity_of(folder)) is not None:
                self._watched[folder] = identity

    def check(self) -> None:
        """Raise PscrError if a folder of images has gone: else all the images left would be missing."""
        for folder, identity in {**self._watched, **self._known}.items():
            if identity_of(folder) != identity:
                raise PscrError(
                    f"{folder}: the images' folder has gone, or another is in its place (an unmounted disk?); "
                    "bring it back and give the same command again to go on"
                )
