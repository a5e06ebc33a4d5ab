"""The making of queries from the rows of a manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import ManifestError, option
from ..records import Query, Status
from ..stores.odd_keys import why_not
from ..stores.uri import WEB_SCHEMES, Place, StorePath, is_stored, path_of_file_uri, place, scheme_of
from .base import ManifestOptions
from .inline_images import inline_image


def choose_columns(path: object, available: Sequence[str], options: ManifestOptions) -> tuple[str, str | None]:
    """Choose the image column and, if there is one, the identifier column; return their names.

    Raises:
        ManifestError: a column isn't there, or several have its name.
    """
    image = options.path_column or ("image" if "path" not in available and "image" in available else "path")
    for name in available:
        plain = "".join(letter for letter in name if letter.isprintable()).strip()
        if plain != name and plain in (image, options.id_column or "id") and plain not in available:
            raise ManifestError(f"{path}: its column {name!r} is not quite {plain!r}; take out what can't be seen")

    def require(name: str, flag: str) -> str:
        if name not in available:
            listed = ", ".join(name if name.isprintable() else repr(name) for name in available) or "none"
            raise ManifestError(f"{path}: no column {name!r} (columns: {listed}); choose one with {flag}")
        if available.count(name) > 1:
            raise ManifestError(f"{path}: has several columns named {name!r}; rename all but one")
        return name

    image = require(image, option("--path-column"))
    if options.id_column is not None:
        return image, require(options.id_column, option("--id-column"))
    return image, require("id", option("--id-column")) if "id" in available and image != "id" else None


@dataclass(frozen=True)
class QueryMaker:
    """A maker of queries from a manifest's values: path, URI, bytes or {bytes, path}.

    Args:
        base: folder, or prefix in an object store, that relative paths start from.
        confine: refuse paths that leave `base`.
        allow_http: take images from web servers, too.
    """

    base: Place
    confine: bool = False
    allow_http: bool = False

    @classmethod
    def for_folder(cls, folder: Place, options: ManifestOptions) -> QueryMaker:
        """Return a maker whose relative paths start from `--root`, else from the manifest's `folder`."""
        root = folder if options.root is None else place(options.root, option("--root"))
        confine = options.root is not None
        if confine and isinstance(root, Path) and not root.is_dir():
            raise ManifestError(f"{option('--root')} {root}: no such folder")
        return cls.at(root, confine=confine, allow_http=options.allow_http)

    @classmethod
    def at(cls, base: Place, *, confine: bool = False, allow_http: bool = False) -> QueryMaker:
        """Return a maker whose relative paths start from a folder, or from a prefix in an object store."""
        return (_StoreQueryMaker if isinstance(base, StorePath) else cls)(base, confine, allow_http)

    def make(self, row: int, value: object, id_: object = None) -> Query:
        """Make the query of one row. A value that names no image gives a query that has failed already."""
        query = Query(row, id=id_)
        try:
            self._fill(query, value)
        except ValueError as error:  # a malformed URI, a null byte
            query.fail(Status.UNREADABLE, f"not a path or URI: {error}")
        return query

    @cached_property
    def folder(self) -> str:
        """Return `base` without symbolic links."""
        return os.path.realpath(self.base)  # type: ignore[arg-type]  # a Path: see `_StoreQueryMaker`

    def _fill(self, query: Query, value: object) -> None:
        if isinstance(value, Mapping):  # Hugging Face's image struct
            query.path = value.get("path")
            value = value["bytes"] if value.get("bytes") is not None else value.get("path")
        if isinstance(value, bytes):
            query.data = value
        elif isinstance(value, str) and (inline := inline_image(value)):
            query.path, query.data, trouble = inline
            if trouble:
                query.fail(Status.UNREADABLE, trouble)
        elif isinstance(value, str) and value:
            query.path = value
            self._locate(query, value)
        elif value is None or value == "":
            query.fail(Status.MISSING, "the row names no image")
        else:
            query.fail(Status.UNREADABLE, f"the row's image is a {type(value).__name__}, not a path or bytes")

    def _locate(self, query: Query, path: str) -> None:
        if scheme_of(path):
            local = self._local_path(query, path)
            if local is None:
                return
            path = local
        # Not normalised: with symbolic links, "a/../b" need not be "b".
        location = os.path.join(self.base, path)  # type: ignore[arg-type]  # noqa: PTH118 - Path would be slow here
        if self.confine and not Path(os.path.realpath(location)).is_relative_to(self.folder):
            query.fail(Status.UNREADABLE, f"the path leaves the root {self.base}")
            return
        query.location = location

    def _local_path(self, query: Query, uri: str) -> str | None:
        """Return the path of a file:// URI. For any other, set `query.uri` or fail the query, and return None."""
        scheme = scheme_of(uri)
        if scheme == "file":
            return path_of_file_uri(uri)
        if scheme in WEB_SCHEMES and not self.allow_http:
            query.fail(Status.UNREADABLE, f"{scheme}:// images are fetched only with allow_http")
        elif scheme not in WEB_SCHEMES and not is_stored(uri):
            query.fail(
                Status.UNREADABLE, f"{scheme}:// is not supported; use local files, s3://, gs://, az:// or http(s)://"
            )
        elif self.confine and not self._within(scheme, uri):
            query.fail(Status.UNREADABLE, f"the path leaves the root {self.base}")
        elif scheme in WEB_SCHEMES:
            query.uri = uri
        else:
            self._ask_for(query, StorePath.parse(uri), uri)
        return None

    @staticmethod
    def _ask_for(query: Query, location: StorePath, text: str) -> None:
        """Set `query.uri`, or fail the query if no object can be there."""
        if text.endswith("/"):
            query.fail(Status.UNREADABLE, "its key ends with a slash, as folders do; name the image's own key")
        elif trouble := why_not(location.key):
            query.fail(Status.UNREADABLE, trouble)
        else:
            query.uri = str(location)

    def _within(self, scheme: str, uri: str) -> bool:
        """Tell whether a URI is inside `base`."""
        return False


class _StoreQueryMaker(QueryMaker):
    """A maker whose relative paths start from a prefix in an object store. Absolute ones are this host's."""

    @cached_property
    def folder(self) -> str:
        return str(self.base)

    def _locate(self, query: Query, path: str) -> None:
        assert isinstance(self.base, StorePath)
        if scheme_of(path):
            local = self._local_path(query, path)
            if local is None:
                return
            path = local
        if path.startswith("/"):
            if self.confine:
                query.fail(Status.UNREADABLE, f"the path leaves the root {self.base}")
            else:
                query.location = path
            return
        location = self.base.joined(path)
        if self.confine and not self.base.contains(location):
            query.fail(Status.UNREADABLE, f"the path leaves the root {self.base}")
        else:
            self._ask_for(query, location, path)

    def _within(self, scheme: str, uri: str) -> bool:
        assert isinstance(self.base, StorePath)
        return scheme not in WEB_SCHEMES and self.base.contains(StorePath.parse(uri))
