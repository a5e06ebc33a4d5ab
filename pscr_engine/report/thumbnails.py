"""Small pictures of a run's images, as data URIs, or the reason where there is none."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from ..errors import ManifestError, MissingDependencyError, StoreError, option
from ..html import data_uri
from ..manifests.kinds import KINDS
from ..manifests.queries import QueryMaker
from ..output.run_reader import RunReader
from ..records import Query, Status
from ..stages.decode import DEFAULT_MAX_PIXELS, DecodeOptions
from ..stages.fetch import Fetcher
from ..stages.load import load_image
from ..stores.uri import place

SIDE = 256
"""Longest side in pixels; a picture has some 20 kB at most."""
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture, or why there is none.

    Args:
        uri: "data:image/jpeg;base64,…"; None if there is no picture.
        problem: why there is none; None if there is one.
        width, height: of the small picture.
    """

    uri: str | None
    problem: str | None = None
    width: int = SIDE
    height: int = SIDE


def make_thumbnails(
    run: RunReader, paths: Mapping[int, str | None], manifest: str | None
) -> tuple[dict[int, Thumbnail], str | None]:
    """Make the small pictures of some rows; images and a manifest that are gone from where they were are no error.

    Args:
        run: the run.
        paths: row → path, as in the parts.
        manifest: where the manifest is now; None for where it was.

    Returns:
        Row → picture, and a note for the page if some images can't be shown.

    Raises:
        ManifestError, StoreError: `manifest` is given, and can't be read.
    """
    query_of, note = _image_source(run, manifest)
    options = DecodeOptions(max_pixels=int(run.identity.get("max_pixels", DEFAULT_MAX_PIXELS)))
    fetcher = Fetcher(private_addresses=bool(run.settings["columns"].get("allow_private_addresses")))
    result: dict[int, Thumbnail] = {}
    with closing(fetcher), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        rows = iter(sorted(paths))
        while group := list(islice(rows, _AT_ONCE)):
            try:
                queries = [query_of(row, paths[row]) for row in group]
                fetcher.fetch_all(queries)
                for row, query in zip(group, queries, strict=True):
                    result[row] = _thumbnail(query, options, fetcher)
            except (ManifestError, StoreError, MissingDependencyError) as error:
                note = note or f"Some images can’t be shown: {error}."
                result.update({row: Thumbnail(None, "image can’t be fetched") for row in group if row not in result})
    return result, note


def _image_source(run: RunReader, manifest: str | None) -> tuple[Callable[[int, str | None], Query], str | None]:
    """Choose what makes the query of a row (rows must ascend), with a note if a manifest is needed but gone.

    Parquet and shards may hold the images themselves: only the manifest has them. For the others, the
    folder of the images and the path are enough, and the manifest may be gone.
    """
    maker = QueryMaker.at(
        place(run.identity.get("image_folder") or ".", "image_folder"),
        confine=run.identity.get("root") is not None,
        allow_http=bool(run.settings["columns"].get("allow_http")),
    )
    kind = KINDS.get(run.manifest_kind)
    holds_images = kind is not None and kind.may_hold_images
    if run.manifest_kind == "files" and manifest is not None:
        moved = place(manifest, option("--manifest"))
        maker = QueryMaker.at(moved if not isinstance(moved, Path) or moved.is_dir() else Path())
    elif holds_images or manifest is not None:
        try:
            reader = run.open_manifest(manifest).reader()
        except (ManifestError, StoreError) as error:
            if manifest is not None:
                raise
            note = f"Some images can’t be shown: {error}."
            return (_gone if run.manifest_kind == "webdataset" else maker.make), note
        return lambda row, path: next(reader.read(range(row, row + 1)), _gone(row, path)), None
    return maker.make, None


def _gone(row: int, path: str | None) -> Query:
    query = Query(row, path)
    query.fail(Status.MISSING, "the manifest is gone")
    return query


def _thumbnail(query: Query, options: DecodeOptions, fetcher: Fetcher) -> Thumbnail:
    load_image(query, options, fetcher)
    if query.pixels is None:
        return Thumbnail(None, "image not found" if query.status is Status.MISSING else f"{query.status.value} now")
    image = Image.fromarray(query.pixels)
    image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    return Thumbnail(data_uri(image, "JPEG", quality=80, optimize=True), None, *image.size)
