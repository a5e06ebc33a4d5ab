"""Bundles in object stores, kept in the user's cache under the digest that names their content."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from pathlib import Path, PurePosixPath

from ..atomic import atomic_directory
from ..errors import BundleError, option
from ..host import cache_folder
from ..stores import objects
from ..stores.client import require_obstore
from ..stores.uri import StorePath

_MANIFEST = "bundle.json"


def cached_bundle(prefix: StorePath, *, afresh: bool = False) -> Path:
    """Return the folder on this host that holds a bundle's files, fetched unless they were before.

    Args:
        prefix: where the bundle is.
        afresh: fetch it again, since what is in the cache is damaged.

    Raises:
        BundleError: there is no bundle.
        StoreError: it can't be fetched.
    """
    require_obstore()
    try:
        raw = objects.read(prefix / _MANIFEST)
    except FileNotFoundError:
        raise BundleError(
            f"{prefix}: no bundle.json there; copy a bundle there, whole, or name one with {option('--bundle')}"
        ) from None
    folder = cache_folder() / "bundles" / hashlib.sha256(raw).hexdigest()
    try:
        _keep(prefix, raw, folder, afresh=afresh)
    except OSError as error:
        raise BundleError(
            f"{folder}: can't keep the bundle there ({error.strerror}); set XDG_CACHE_HOME to a folder with room for it"
        ) from error
    return folder


def _keep(prefix: StorePath, raw: bytes, folder: Path, *, afresh: bool) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # another process may be fetching it
        if afresh:
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.is_dir():
            with atomic_directory(folder) as temporary:
                _fetch(prefix, raw, temporary)


def _fetch(prefix: StorePath, raw: bytes, folder: Path) -> None:
    for name in _names(prefix, raw):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            stored = objects.look(prefix / name)
            if stored is None:
                raise FileNotFoundError
            with stored.open("rb") as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 2**22)
        except FileNotFoundError:
            raise BundleError(f"{prefix}: {name} is missing; copy the bundle again, whole") from None
    (folder / _MANIFEST).write_bytes(raw)


def _names(prefix: StorePath, raw: bytes) -> list[str]:
    """List the files that a bundle.json names, or raise BundleError if one of them is outside the bundle."""
    try:
        names = [str(name) for name in json.loads(raw)["files"]]
    except (ValueError, LookupError, TypeError):
        return []  # whoever opens it will say what is wrong
    for name in names:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or name == _MANIFEST:
            raise BundleError(f"{prefix}: bundle.json names a file outside the bundle: {name}")
    return names
