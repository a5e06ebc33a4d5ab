"""Open an output folder, wherever it is."""

from __future__ import annotations

from pathlib import Path

from ..stores.uri import Place
from .folder import Folder
from .local_folder import LocalFolder


def open_folder(place: Place) -> Folder:
    """The output folder at a place."""
    if isinstance(place, Path):
        return LocalFolder(place)
    from .store_folder import StoreFolder

    return StoreFolder(place)
