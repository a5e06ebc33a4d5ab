"""Fetching of images from web servers, with limits on addresses, redirects, size and time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from .._version import __version__
from ..errors import MissingDependencyError
from .public_addresses import AddressRefusedError, resolve
from .trouble import FetchError, Kind, Room, TooLargeError, Trouble

try:
    import httpcore2 as http
except ModuleNotFoundError as missing:
    raise MissingDependencyError("httpcore2", "fetching images from the web", "stores") from missing

_REDIRECTS = 5
_SECONDS = 60.0
_TIMEOUTS = {"connect": 10.0, "read": 20.0, "write": 10.0, "pool": _SECONDS}
_CONNECTIONS = 64
_CONNECT_TO = 3
# Characters that stay as they are in a URL; all others are escaped.
_SAFE = "/%:@!$&'()*+,;=~-._?[]"
_NUMBER = re.compile(r"\d{1,18}")


class _CheckedNetwork(http.AsyncNetworkBackend):
    """A network that connects to addresses that have been checked, and to nothing else."""

    def __init__(self, *, private: bool) -> None:
        self._private, self._network = private, http.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> http.AsyncNetworkStream:
        addresses = await resolve(host, port, private=self._private)
        for address in addresses[: _CONNECT_TO - 1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (http.ConnectError, http.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(self, *arguments: Any, **options: Any) -> http.AsyncNetworkStream:
        raise AddressRefusedError("no sockets of this host")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Address(NamedTuple):
    """The parts of a web address."""

    scheme: str
    host: str
    port: int | None
    target: str

    @classmethod
    def parse(cls, url: str) -> _Address:
        """Parse a URL, or raise ValueError if it is no web address."""
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https"):
            raise ValueError(f"leads to {parts.scheme or 'no'}://")
        if not parts.hostname:
            raise ValueError("no host in it")
        if parts.username is not None:
            raise ValueError("a user name in a URL is not supported")
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
        target = quote(parts.path or "/", _SAFE) + (f"?{quote(parts.query, _SAFE)}" if parts.query else "")
        return cls(parts.scheme.lower(), host, parts.port, target)

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


class Web:
    """A pool of connections to web servers.

    Args:
        private: whether private, loopback and other special addresses are allowed.
    """

    def __init__(self, *, private: bool) -> None:
        self._pool = http.AsyncConnectionPool(
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=10.0,
            network_backend=_CheckedNetwork(private=private),
        )

    async def get(self, url: str, max_bytes: int, room: Room) -> bytes | None:
        """Try once to fetch an image; return None if there is no room for it now.

        Raises:
            FetchError, TooLargeError: it can't be fetched, or has more than `max_bytes`.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                return await self._follow(url, max_bytes, room)
        except AddressRefusedError as error:
            raise FetchError(Trouble(Kind.OTHER, str(error))) from error
        except (ValueError, UnicodeError) as error:
            raise FetchError(Trouble(Kind.INVALID, f"not a URL that can be fetched: {error}")) from error
        except (TimeoutError, http.TimeoutException) as error:
            raise FetchError(Trouble(Kind.BUSY, "no answer in time")) from error
        except (http.ConnectError, OSError) as error:
            raise FetchError(Trouble(Kind.UNREACHABLE, f"can't connect ({error})")) from error
        except (http.NetworkError, http.ProtocolError) as error:
            raise FetchError(Trouble(Kind.BROKEN, f"the answer broke off ({error})")) from error

    async def _follow(self, url: str, max_bytes: int, room: Room) -> bytes | None:
        for _ in range(_REDIRECTS + 1):
            address = _Address.parse(url)
            # One request per redirect, so that each passes the check of addresses.
            request = http.URL(
                scheme=address.scheme, host=address.host, port=address.port, target=address.target.encode()
            )
            headers: dict[bytes | str, bytes | str] = {
                "Host": address.authority,
                "User-Agent": f"pscr-engine/{__version__}",
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            }
            async with self._pool.stream("GET", request, headers=headers, extensions={"timeout": _TIMEOUTS}) as answer:
                facts = {name.lower(): value.decode("latin-1") for name, value in answer.headers}
                if answer.status in (301, 302, 303, 307, 308) and b"location" in facts:
                    url = urljoin(url, facts[b"location"])
                    continue
                return await _body(answer, facts, max_bytes, room)
        raise FetchError(Trouble(Kind.OTHER, f"more than {_REDIRECTS} redirects"))

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()


async def _body(answer: Any, facts: dict[bytes, str], max_bytes: int, room: Room) -> bytes | None:
    if answer.status != 200:
        raise FetchError(Trouble(_kind(answer.status), f"HTTP status {answer.status}"))
    stated = facts.get(b"content-length", "")
    size = int(stated) if _NUMBER.fullmatch(stated) else None
    if size is not None and size > max_bytes:
        raise TooLargeError(size)
    if not room.take(size or 0):
        return None
    blocks, read = [], 0
    async for block in answer.aiter_stream():
        read += len(block)
        if read > max_bytes:
            raise TooLargeError(read)
        blocks.append(block)
    if size is None:
        room.take(read)
    elif read != size:
        raise FetchError(Trouble(Kind.BROKEN, f"{read} of {size} bytes came"))
    return b"".join(blocks)


def _kind(status: int) -> Kind:
    if status in (404, 410):
        return Kind.MISSING
    if status in (401, 403):
        return Kind.DENIED
    return Kind.BUSY if status in (408, 425, 429) or status >= 500 else Kind.OTHER
