"""Small pictures of a run's images, as data URIs; a reason where there is none."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import ManifestError
from ..manifests.queries import QueryMaker
from ..output.run_reader import RunReader
from ..records import Query, Status
from ..stages.decode import DEFAULT_MAX_PIXELS, DecodeOptions, decode, pillow_without_limit
from ..stages.fetch import fetch

SIDE = 256
"""Longest side in pixels: at most some 20 kB each."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture.

    Args:
        uri: "data:image/jpeg;base64,…"; None if there is no picture.
        problem: why not.
        width, height: of the small picture.
    """

    uri: str | None
    problem: str | None = None
    width: int = SIDE
    height: int = SIDE


def make_thumbnails(
    run: RunReader, paths: Mapping[int, str | None], manifest: str | None
) -> tuple[dict[int, Thumbnail], str | None]:
    """Make the small pictures of some rows. Images that are gone are no error, nor is a manifest that is.

    Args:
        run: the run.
        paths: row → path, as in the parts.
        manifest: where the manifest is now; None for where it was.

    Returns:
        Row → picture, and what is to be said of them all, if anything.
    """
    query_of, note = _image_source(run, manifest)
    options = DecodeOptions(max_pixels=int(run.identity.get("max_pixels", DEFAULT_MAX_PIXELS)))
    with pillow_without_limit(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        return {row: _thumbnail(query_of(row, paths[row]), options) for row in sorted(paths)}, note


def _image_source(run: RunReader, manifest: str | None) -> tuple[Callable[[int, str | None], Query], str | None]:
    """What finds the image of a row (rows must ascend), and a note if it isn't the manifest, but should be.

    Parquet and shards may hold the images themselves: only the manifest has them. For the others, the
    folder of the images and the path are enough, and the manifest may be gone.
    """
    maker = QueryMaker(Path(run.identity.get("image_folder") or "."), run.identity.get("root") is not None)
    holds_images = run.manifest_kind in ("parquet", "webdataset")
    if run.manifest_kind == "files" and manifest is not None:
        maker = QueryMaker(Path(manifest) if Path(manifest).is_dir() else Path())
    elif holds_images or manifest is not None:
        try:
            reader = run.open_manifest(manifest).reader()
        except ManifestError as error:
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


def _thumbnail(query: Query, options: DecodeOptions) -> Thumbnail:
    fetch(query)
    decode(query, options)
    if query.pixels is None:
        return Thumbnail(None, "image not found" if query.status is Status.MISSING else f"{query.status.value} now")
    image = Image.fromarray(query.pixels)
    image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80, optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", None, *image.size)
