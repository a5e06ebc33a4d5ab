"""Opening of output folders, on a file system or in an object store."""

from __future__ import annotations

from pathlib import Path

from ..stores.uri import Place
from .folder import Folder
from .local_folder import LocalFolder


def open_folder(location: Place) -> Folder:
    """Return the output folder at a path, or at a location in an object store."""
    if isinstance(location, Path):
        return LocalFolder(location)
    from .store_folder import StoreFolder

    return StoreFolder(location)
