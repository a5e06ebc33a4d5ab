"""Locations in object stores, such as `s3://bucket/key`, as plain values that need no library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ..errors import UsageError

# Schemes that users write, and the one that each stands for.
_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}
WEB_SCHEMES = frozenset(["http", "https"])


def scheme_of(text: str) -> str:
    """Return the scheme of a URI in lower case; empty for a path. `file:/x` is a URI, too."""
    scheme, separator, _ = text.partition("://")
    if separator:
        return scheme.lower()
    return "file" if text[:6].lower() == "file:/" else ""


def path_of_file_uri(uri: str) -> str:
    """Return the path that a `file:` URI names. "?" and "#" mean themselves; "%20" is a space.

    Raises:
        ValueError: it names another host, or no file.
    """
    rest = uri[len("file:") :]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise ValueError(f"{uri}: names the host {host!r}; write file:///PATH, or the path alone")
        rest = slash + rest
    if not rest:
        raise ValueError(f"{uri}: names no file")
    return unquote(rest, errors="surrogateescape")


def is_stored(text: str) -> bool:
    """Tell whether a text is the URI of something in an object store."""
    return scheme_of(text) in _SCHEMES


@dataclass(frozen=True, slots=True)
class StorePath:
    """The location of an object, or of all objects below a prefix.

    Args:
        scheme: "s3", "gs" or "az".
        bucket: name of the bucket or container.
        key: as the store has it, nothing escaped; no "/" at its end; empty for the whole bucket.
    """

    scheme: str
    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, uri: str) -> StorePath:
        """Parse a URI. Its key is taken as it stands, as in the stores' own tools: "%20" and "?" mean themselves.

        Raises:
            ValueError: there is no bucket in it, or the scheme is no store's.
        """
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if not bucket:
            raise ValueError(f"{uri}: names no bucket")
        if key.startswith("/"):  # obstore would ask for the key without it: for another object
            raise ValueError(f"{uri}: its key begins with a slash, which can't be asked for")
        if scheme.lower() not in _SCHEMES:
            raise ValueError(f"{scheme}:// is no object store")
        return cls(_SCHEMES[scheme.lower()], bucket, key.rstrip("/"))

    def __str__(self) -> str:
        return f"{self.root}/{self.key}" if self.key else self.root

    @property
    def root(self) -> str:
        """Return the bucket's own URI."""
        return f"{self.scheme}://{self.bucket}"

    @property
    def name(self) -> str:
        """Return what is after the key's last "/"."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> StorePath:
        """Return the prefix that the object is directly below."""
        return StorePath(self.scheme, self.bucket, self.key.rpartition("/")[0])

    def __truediv__(self, name: str) -> StorePath:
        return StorePath(self.scheme, self.bucket, f"{self.key}/{name}" if self.key else name)

    def joined(self, relative: str) -> StorePath:
        """Follow a relative path. Keys know no "." and "..", so these are resolved here.

        Raises:
            ValueError: it leads out of the bucket.
        """
        if "//" not in f"/{relative}" and "/." not in f"/{relative}":
            return self / relative
        segments = self.key.split("/") if self.key else []
        for segment in relative.split("/"):
            if segment == "..":
                if not segments:
                    raise ValueError(f"{relative}: leads out of {self.root}")
                segments.pop()
            elif segment not in ("", "."):
                segments.append(segment)
        return StorePath(self.scheme, self.bucket, "/".join(segments))

    def contains(self, other: StorePath) -> bool:
        """Tell whether `other` is below this prefix."""
        return (self.scheme, self.bucket) == (other.scheme, other.bucket) and (
            not self.key or other.key.startswith(f"{self.key}/")
        )

    def relative(self, other: StorePath) -> str:
        """Return the key of `other`, which is below this prefix, without the prefix."""
        return other.key[len(self.key) + 1 :] if self.key else other.key


Place = Path | StorePath
"""A path on this host, or a location in an object store."""


def place(text: str | Path | StorePath, what: str) -> Place:
    """Turn what a user gave into a path on this host, or a location in an object store.

    Args:
        text: a path, a `file://` URI or an object store's URI; what is not text is returned as it is.
        what: the option that it was given to, for messages.

    Raises:
        UsageError: the URI has another scheme, or names no bucket.
    """
    if not isinstance(text, str):
        return text
    scheme = scheme_of(text)
    if scheme == "file":
        try:
            return Path(path_of_file_uri(text))
        except ValueError as error:
            raise UsageError(f"{what} {error}") from error
    if not scheme:
        return Path(text)
    if not is_stored(text):
        raise UsageError(f"{what} {text}: can't be on {scheme}://; use a path, s3://, gs:// or az://")
    try:
        return StorePath.parse(text)
    except ValueError as error:
        raise UsageError(f"{what} {error}") from error
