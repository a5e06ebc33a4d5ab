"""Manifests in object stores: a file, all that is below a prefix, or a glob over keys.

Hidden folders, bundles and runs are passed over, as on a file system.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from ..errors import ManifestError
from ..stores.client import require_obstore
from ..stores.objects import StoredObject, listed, look, look_at_all
from ..stores.odd_keys import oddity
from ..stores.uri import StorePath
from .base import Manifest, ManifestOptions
from .braces import expanded, has_range, no_shard
from .image_files import OUR_OWN, FileListManifest, is_apple_double, is_hidden, is_image
from .kinds import first_wildcard, is_glob, is_parquet, open_table, refuse_mixture, refuse_tables
from .parquet import ParquetManifest
from .webdataset import WebDatasetManifest, is_shard


def open_stored(where: StorePath, options: ManifestOptions, *, directory: bool) -> Manifest:
    """Open a manifest of any kind that is in an object store.

    Args:
        where: an object, a prefix or a glob.
        options: how to read it.
        directory: whether it ends with "/".

    Raises:
        ManifestError: there is nothing there, it can't be read, or it lacks a column.
        StoreError: the store can't be reached, or refuses.
    """
    require_obstore()
    file = None if directory else look(where)
    if file is not None:
        return open_table(where, file, where.parent, options)
    if is_glob(where.key):
        return _open_glob(where, options)
    return _open_range(where, options) if has_range(where.key) else _open_prefix(where, options)


def _open_range(where: StorePath, options: ManifestOptions) -> Manifest:
    paths = [StorePath(where.scheme, where.bucket, key) for key in expanded(where.key)]
    shards = look_at_all(paths)
    if missing := next((path for path, shard in zip(paths, shards, strict=True) if shard is None), None):
        raise no_shard(where, missing)
    return WebDatasetManifest([shard for shard in shards if shard is not None], options)


def _open_glob(pattern: StorePath, options: ManifestOptions) -> Manifest:
    segments = pattern.key.split("/")
    fixed = first_wildcard(segments)
    base = StorePath(pattern.scheme, pattern.bucket, "/".join(segments[:fixed]))
    files = [
        stored
        for stored in listed(base)
        if _matches(segments[fixed:], base.relative(stored.path).split("/")) and not is_apple_double(stored.name)
    ]
    names = [base.relative(stored.path) for stored in files]
    if not names:
        raise ManifestError(f"glob {pattern}: matches no objects")
    if all(map(is_shard, names)):
        return WebDatasetManifest(_looked_at(files), options)
    if all(map(is_parquet, names)):
        return ParquetManifest(base, _looked_at(files), base, options)
    refuse_tables(str(pattern), names)
    return FileListManifest.from_keys(base, names, options)


def _open_prefix(prefix: StorePath, options: ManifestOptions) -> Manifest:
    parquet: list[StoredObject] = []
    shards: list[StoredObject] = []
    images: list[str] = []
    own: set[str] = set()  # folders of bundles and runs
    for stored in listed(prefix):
        name = prefix.relative(stored.path)
        folder, _, file = name.rpartition("/")
        if file in OUR_OWN and folder:
            own.add(folder)
        elif any(part.startswith(".") and part not in (".", "..") for part in folder.split("/")):
            continue
        elif is_hidden(name) and (is_parquet(name) or is_shard(name)):
            continue  # Spark's leftovers, for example
        elif is_parquet(name):
            parquet.append(stored)
        elif is_shard(name):
            shards.append(stored)
        elif is_image(name):
            images.append(name)
    if own:
        parquet = [stored for stored in parquet if own.isdisjoint(_folders(prefix.relative(stored.path)))]
        shards = [stored for stored in shards if own.isdisjoint(_folders(prefix.relative(stored.path)))]
        images = [name for name in images if own.isdisjoint(_folders(name))]
    refuse_mixture(prefix, parquet=parquet, shards=shards, images=images)
    if parquet:
        return ParquetManifest(prefix, _looked_at(parquet), prefix, options)
    if shards:
        return WebDatasetManifest(_looked_at(shards), options)
    if not images:
        raise ManifestError(f"{prefix}: no such object, and no Parquet files, tar shards or images below it")
    return FileListManifest.from_keys(prefix, images, options)


def _looked_at(files: Sequence[StoredObject]) -> list[StoredObject]:
    """Return the files with their states, which a listing with odd keys lacks.

    Raises:
        ManifestError: one of them has such a key: its rows can't be read.
    """
    for file in files:
        if odd := oddity(file.path.key):
            raise ManifestError(f"{str(file)!r}: its key has {odd}, so that it can't be read; copy it to another key")
    without = [file.path for file in files if not file.state]
    found = dict(zip(without, look_at_all(without), strict=True))
    return [file if file.state else found[file.path] or file for file in files]


def _folders(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _matches(pattern: list[str], names: list[str]) -> bool:
    """Match as `glob.glob(..., recursive=True)` does: "**" is any folders, and wildcards match no leading dot."""
    if not pattern or not names:
        return not names and pattern in ([], ["**"])
    first, name = pattern[0], names[0]
    if name.startswith(".") and not first.startswith("."):
        return False
    if first == "**":
        return _matches(pattern[1:], names) or _matches(pattern, names[1:])
    return fnmatch.fnmatchcase(name, first) and _matches(pattern[1:], names[1:])
