"""Servers on loopback: moto's S3 endpoint, and a proxy before it that spoils requests as a test wishes."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import obstore
from obstore.store import S3Store

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
LISTED_AT_ONCE = 100
"""Keys of one answer to a listing; the rest is asked for anew. S3 gives 1000."""

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class S3:
    """An S3 endpoint, and how many buckets it has been asked for."""

    port: int
    buckets: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, url: str | None = None) -> dict[str, str]:
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": url or self.url}

    def bucket(self, name: str | None = None) -> Bucket:
        """Create an empty bucket."""
        self.buckets += 1
        name = name or f"bucket-{os.getpid()}-{self.buckets}"
        connection = HTTPConnection("127.0.0.1", self.port)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()
        return Bucket(self, name)


@dataclass
class Bucket:
    endpoint: S3
    name: str

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    @property
    def store(self) -> S3Store:
        config = {
            "access_key_id": "test",
            "secret_access_key": "test",
            "region": "us-east-1",
            "endpoint": self.endpoint.url,
        }
        return S3Store(self.name, config=config, client_options={"allow_http": True})

    def put(self, key: str, data: bytes) -> None:
        obstore.put(self.store, key, data)

    def get(self, key: str) -> bytes:
        return bytes(obstore.get(self.store, key).bytes())

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(entry["path"] for page in obstore.list(self.store, prefix or None) for entry in page)

    def remove(self, *keys: str) -> None:
        obstore.delete(self.store, list(keys))


@contextmanager
def s3_server() -> Iterator[S3]:
    """Start moto's server in a process of its own; yields the endpoint."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **CREDENTIALS, "MOTO_S3_DEFAULT_MAX_KEYS": str(LISTED_AT_ONCE)},
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield S3(port)
    finally:
        process.kill()
        process.wait()


Rule = Callable[[str, str], str | None]
"""Given method and path, names the trouble; or None.

"503", "429", "403", "500", "drop", "truncate", "half", "hang", "redirect".
"""


@dataclass
class Proxy:
    """A proxy that hands requests on to an endpoint, or spoils them as `rule` says.

    `rule` may be changed at any time. `seen` counts requests by method, `spoilt` by trouble, and `most_under_way` is
    the largest number of requests at one time. Requests must be below `namespace`, which the endpoint doesn't see.
    """

    port: int
    rule: Rule = lambda method, path: None
    seen: Counter[str] = field(default_factory=Counter)
    spoilt: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most_under_way: int = 0
    namespace: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.namespace}"


@contextmanager
def proxy_before(endpoint: S3) -> Iterator[Proxy]:
    """Start a proxy for an endpoint, in threads of this process."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            with lock:
                proxy.under_way += 1
                proxy.most_under_way = max(proxy.most_under_way, proxy.under_way)
                proxy.seen[self.command] += 1
            try:
                self.answer()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with lock:
                    proxy.under_way -= 1

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def answer(self) -> None:
            if not self.path.startswith(f"{proxy.namespace}/"):
                self.send_error(404)
                return
            path = self.path.removeprefix(proxy.namespace)
            trouble = proxy.rule(self.command, path)
            if trouble is not None:
                with lock:
                    proxy.spoilt[trouble] += 1
            length = int(self.headers.get("Content-Length") or 0)
            if trouble == "half":  # half of the body is read, and nothing reaches the store
                self.rfile.read(length // 2)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            body = self.rfile.read(length)
            if trouble == "drop":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if trouble == "hang":
                time.sleep(60)
            if trouble in ("503", "429", "403", "500"):
                self.send_response(int(trouble))
                self.send_header("Content-Length", str(len(_SLOW_DOWN) if trouble == "503" else 0))
                self.end_headers()
                if trouble == "503" and self.command != "HEAD":
                    self.wfile.write(_SLOW_DOWN)
                return
            if trouble == "redirect":
                # Clients don't take their credentials to another host: the place itself must open the object.
                name, _, key = unquote(path).lstrip("/").partition("/")
                store = Bucket(endpoint, name).store
                self.send_response(302)
                method: Any = self.command
                self.send_header("Location", obstore.sign(store, method, key, timedelta(minutes=5)))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            upstream = HTTPConnection("127.0.0.1", endpoint.port)
            upstream.request(self.command, path, body or None, dict(self.headers))
            reply = upstream.getresponse()
            data = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "server", "date", "content-length"):
                    self.send_header(name, value)
            stated = reply.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", stated or "0")
            self.end_headers()
            if trouble == "truncate":
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.wfile.write(data)
            upstream.close()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, *arguments: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    proxy = Proxy(server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


def now_and_then(share: float, trouble: str, seed: int = 0) -> Rule:
    """Make a rule that gives the same trouble to a share of requests, drawn at random."""
    dice = random.Random(seed)
    lock = threading.Lock()

    def rule(method: str, path: str) -> str | None:
        with lock:
            return trouble if dice.random() < share else None

    return rule
