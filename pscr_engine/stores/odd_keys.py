"""Keys that obstore can't ask for, and the listing of prefixes that hold some: it gives up at the first."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..errors import one_line
from .trouble import FetchError, Kind, Trouble
from .uri import StorePath

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def oddity(key: str) -> str:
    """Say what about a key keeps obstore from asking for it; empty if nothing does."""
    segments = key.split("/")
    if "" in segments:
        return "an empty segment"
    if "." in segments or ".." in segments:
        return "a segment that is only dots"
    if _CONTROL.search(key):
        return "a control character"
    return ""


def why_not(key: str) -> str:
    """Say, for a row's error, why a key can't be asked for; empty if it can."""
    odd = oddity(key)
    return f"its key has {odd}, so that it can't be asked for; copy it to another key" if odd else ""


def keys_with_sizes(prefix: StorePath) -> list[tuple[str, int]]:
    """List all keys below a prefix of S3 with their sizes, in their order, odd ones among them.

    By Arrow's own client, which takes keys as they are, but all in one answer and without ETags.

    Raises:
        FetchError: they can't be listed.
    """
    from pyarrow.fs import FileSelector, FileType

    root = f"{prefix.bucket}/{prefix.key}" if prefix.key else prefix.bucket
    try:
        found = _client().get_file_info(FileSelector(root, recursive=True))
    except (ImportError, OSError) as error:
        raise FetchError(Trouble(Kind.OTHER, one_line(error, 200))) from error
    keys = [(info.path[len(prefix.bucket) + 1 :], int(info.size)) for info in found if info.type == FileType.File]
    return sorted(keys, key=lambda each: os.fsencode(each[0]))


def _client() -> S3FileSystem:
    from pyarrow.fs import S3FileSystem

    named = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next((os.environ[name] for name in named if os.environ.get(name)), "")
    scheme, _, address = endpoint.rpartition("://")
    return S3FileSystem(
        anonymous=_is_set("AWS_SKIP_SIGNATURE"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        scheme=scheme.lower() or "https",
        endpoint_override=address.rstrip("/") or None,
        force_virtual_addressing=_is_set("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
        connect_timeout=5,
        request_timeout=120,
    )


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
