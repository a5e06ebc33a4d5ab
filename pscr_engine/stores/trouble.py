"""Kinds of failed requests, recognised by the words of obstore's errors, and limits on what is fetched."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from ..errors import one_line


class Kind(StrEnum):
    """Kinds of trouble, by what can be done about them."""

    MISSING = "missing"  # there is no such object
    DENIED = "denied"  # credentials, permissions, a bucket that isn't there: no retry helps
    UNREACHABLE = "unreachable"  # nobody answers
    BUSY = "busy"  # throttled, a server's own error, or too slow
    BROKEN = "broken"  # an answer that ends early, or makes no sense
    CHANGED = "changed"  # the object is not the one that was asked for
    INVALID = "invalid"  # no store could have such a key
    OTHER = "other"


OF_STORE = frozenset([Kind.DENIED, Kind.UNREACHABLE, Kind.BUSY])
"""Kinds that may concern the whole store, not one object."""


class Trouble(NamedTuple):
    """What kind of failure it was, and the reason in a few words."""

    kind: Kind
    reason: str


_STATUS = re.compile(r"status code: (\d{3})(?: ([A-Za-z -]+))?")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_RETRIES = re.compile(r"after (\d+) retries")
# Error codes that come with status 400 or 404, although they deny access to the whole store.
_DENYING = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "NoSuchBucket",
    "SignatureDoesNotMatch",
    "RequestTimeTooSkewed",
    "AuthorizationHeaderMalformed",
    "ContainerNotFound",
}
_BUSY_CODES = {"RequestTimeout", "SlowDown"}
# Where clients look for credentials if there are none in the environment.
_METADATA = re.compile(r"169\.254\.|/latest/(?:api/token|meta-data)|metadata\.google|/metadata/identity")
_PREFIX = re.compile(r"^Generic \w+ error: ")


def trouble_of(error: BaseException) -> Trouble:
    """Classify an error that obstore, or the reading of a body, has raised."""
    text = str(error).partition("\n\nDebug source")[0]
    status = _STATUS.search(text)
    code = _CODE.search(text)
    retries = _RETRIES.search(text)
    reason = _reason(text, status, code)
    if retries is not None:
        reason += f", after {retries[1]} retries"
    return Trouble(_kind(error, text, int(status[1]) if status else None, code[1] if code else ""), reason)


def _reason(text: str, status: re.Match[str] | None, code: re.Match[str] | None) -> str:
    if _METADATA.search(text):
        return "no credentials in the environment"
    if status is not None:
        return f"{status[1]} {code[1] if code else (status[2] or '').strip()}".strip()
    if "redirect without LOCATION" in text:
        return "the bucket is in another region; set AWS_REGION"
    return one_line(Exception(text.rpartition(" - ")[2] if " - " in text else _PREFIX.sub("", text)), 200)


def _kind(error: BaseException, text: str, status: int | None, code: str) -> Kind:
    name = type(error).__name__
    if _METADATA.search(text) or code in _DENYING or status in (401, 403) or "redirect without LOCATION" in text:
        return Kind.DENIED
    if isinstance(error, FileNotFoundError) or status == 404:
        return Kind.MISSING
    if name in ("PermissionDeniedError", "UnauthenticatedError"):
        return Kind.DENIED
    if name in ("PreconditionError", "AlreadyExistsError"):
        return Kind.CHANGED
    if (
        isinstance(error, TimeoutError)
        or code in _BUSY_CODES
        or (status is not None and (status >= 500 or status in (408, 429)))
    ):
        return Kind.BUSY
    if isinstance(error, ValueError):
        return Kind.INVALID
    if status is None and "error sending request" in text:
        # obstore names the underlying causes only in its debug text.
        return Kind.BUSY if "TimedOut" in str(error) else Kind.UNREACHABLE
    return Kind.BROKEN if status is None else Kind.OTHER


class FetchError(Exception):
    """An image could not be fetched.

    Args:
        trouble: why.
    """

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


class TooLargeError(Exception):
    """An image is over the limit.

    Args:
        size: its bytes, at least.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Room:
    """A limit on the bytes that are held at once. What comes first gets in even if it is larger.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._taken = limit, 0

    def take(self, size: int) -> bool:
        """Reserve room for `size` bytes, and tell whether there was enough."""
        if self._taken and self._taken + size > self._limit:
            return False
        self._taken += size
        return True
