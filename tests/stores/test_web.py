"""Images over http: a real server on loopback, with real redirects, limits and troubles."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event

import pytest

from pscr_engine.errors import StoreError
from pscr_engine.records import Query, RunStats
from pscr_engine.stages.fetch import Fetcher
from pscr_engine.stores import remote_images as images_module
from pscr_engine.stores.remote_images import RemoteImages

from ..helpers.images import encoded, pixels

IMAGE = encoded(pixels(40, 50))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    url: str
    seen: Counter[str]

    def handle_error(self, *arguments):
        pass


@pytest.fixture
def web():
    seen = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def reply(self, status, body=b"", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            seen[self.path] += 1
            name, _, rest = self.path[1:].partition("?")[0].partition("/")
            match name:
                case "image" | "caf%C3%A9":
                    self.reply(200, IMAGE)
                case "hop":
                    left = int(rest)
                    self.reply(302, Location=f"/hop/{left - 1}" if left > 1 else "/image")
                case "to":
                    self.reply(302, Location=rest)
                case "status":
                    self.reply(int(rest), b"no")
                case "flaky":
                    self.reply(200, IMAGE) if seen[self.path] > 2 else self.reply(503)
                case "short":
                    self.reply(200, IMAGE[:20], Content_Length=str(len(IMAGE)))
                    self.close_connection = True
                case "huge":
                    self.reply(200, IMAGE[:1], Content_Length=str(10**12))
                    self.close_connection = True
                case "endless":
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    while True:
                        self.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                case "chunked":
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.wfile.write(b"%x\r\n" % len(IMAGE) + IMAGE + b"\r\n0\r\n\r\n")
                case "silent":
                    time.sleep(30)
                case _:
                    self.reply(404)

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url, server.seen = f"http://127.0.0.1:{server.server_address[1]}", seen
    yield server
    server.shutdown()
    server.server_close()


def fetched(*urls, private=True, max_bytes=10**6, hold=10**8, remote=None):
    queries = [Query(row, path=url, uri=url) for row, url in enumerate(urls)]
    remote = remote or RemoteImages(private_addresses=private)
    remote.fetch(queries, max_bytes, hold, Event())
    remote.close()
    return queries


def test_images_and_what_can_go_wrong_with_them(web, monkeypatch):
    monkeypatch.setattr(images_module, "_FIRST_PAUSE", 0.01)
    expected = {
        "/image": ("ok", None),
        "/image?size=1&x=a b": ("ok", None),
        "/café": ("ok", None),
        "/chunked": ("ok", None),
        "/hop/5": ("ok", None),
        "/flaky": ("ok", None),
        "/hop/6": ("unreadable", "more than 5 redirects"),
        "/status/404": ("missing", "HTTP status 404"),
        "/status/410": ("missing", "HTTP status 410"),
        "/status/403": ("unreadable", "HTTP status 403"),
        "/status/503": ("unreadable", "HTTP status 503"),
        "/short": ("unreadable", "the answer broke off"),
        "/huge": ("too_large", "1,000,000,000,000 bytes, over the limit of 1,000,000"),
        "/endless": ("too_large", "over the limit of 1,000,000"),
        "/to/file:///etc/passwd": ("unreadable", "leads to file://"),
        "/to/ftp://127.0.0.1/x": ("unreadable", "leads to ftp://"),
        "/to/http://user@127.0.0.1/x": ("unreadable", "a user name in a URL is not supported"),
    }
    for query, (status, error) in zip(fetched(*(web.url + path for path in expected)), expected.values(), strict=True):
        assert query.status == status, query
        if error is None:
            assert query.data == IMAGE
        else:
            assert error in query.error
    assert web.seen["/status/503"] == 4
    assert web.seen["/status/403"] == 1


def test_private_addresses_are_refused_unless_allowed(web):
    port = web.server_address[1]
    urls = [f"http://{host}:{port}/image" for host in ("127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1")]
    urls += [f"http://[::ffff:127.0.0.1]:{port}/image", f"http://[::1]:{port}/image", "http://169.254.169.254/latest"]
    for query in fetched(*urls, private=False):
        assert query.status == "unreadable"
        assert "is not on the public internet (allow_private_addresses)" in query.error
    assert not web.seen


def test_a_redirect_is_checked_like_the_first_address(web, monkeypatch):
    """Send a public host's client to a private one, and let a public name lead elsewhere at the second look-up."""
    port = web.server_address[1]
    lookups = Counter()
    real = asyncio.BaseEventLoop.getaddrinfo

    async def lookup(self, host, number, **options):
        lookups[host] += 1
        if host == "public.example":
            # "public" for the test's purposes: the check below lets 127.0.0.2 through
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", number))]
        return await real(self, host, number, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", lookup)
    from pscr_engine.stores import public_addresses

    monkeypatch.setattr(public_addresses, "is_public", lambda address: address == "127.0.0.2")
    server = Server(("127.0.0.2", port), web.RequestHandlerClass)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        good, bad = fetched(
            f"http://public.example:{port}/image",
            f"http://public.example:{port}/to/http://127.0.0.1:{port}/image",
            private=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert good.data == IMAGE
    assert "127.0.0.1 is at 127.0.0.1, which is not on the public internet" in bad.error
    assert lookups["public.example"] <= 2  # once per connection, never again to connect
    assert lookups["127.0.0.1"] == 1


def test_what_does_not_fit_is_left_for_later(web):
    queries = fetched(*[f"{web.url}/image"] * 6, hold=int(2.5 * len(IMAGE)))
    assert sorted(query.data is not None for query in queries) == [False] * 4 + [True] * 2
    assert all(query.ok for query in queries)


def test_stopping_does_not_wait(web):
    stopping = Event()
    threading.Timer(0.2, stopping.set).start()
    begun = time.monotonic()
    remote = RemoteImages(private_addresses=True)
    remote.fetch([Query(0, uri=f"{web.url}/silent")], 10**6, 10**8, stopping)
    assert time.monotonic() - begun < 5
    remote.close()


def test_a_network_that_is_gone_ends_the_run(web, monkeypatch):
    """Check that dead hosts are rows as long as something else can be read, and end the run otherwise."""
    monkeypatch.setattr(images_module, "_FIRST_PAUSE", 0.001)
    remote = RemoteImages(private_addresses=True)
    dead = [Query(row, uri=f"http://127.0.0.1:9/{row}") for row in range(100)]
    remote.fetch([Query(0, uri=f"{web.url}/image")], 10**6, 10**8, Event())
    remote.fetch(dead, 10**6, 10**8, Event())
    assert {query.status for query in dead} == {"unreadable"}
    assert "can't connect" in dead[0].error
    with pytest.raises(StoreError, match="the web: images can't be read from there"):
        RemoteImages(private_addresses=True).fetch([Query(q.row, uri=q.uri) for q in dead], 10**6, 10**8, Event())
    remote.close()


@pytest.mark.medium
def test_bytes_and_retries_are_counted(web):
    stats = RunStats()
    queries = [Query(row, uri=f"{web.url}/{path}") for row, path in enumerate(["image", "flaky", "status/404"])]
    with closing(Fetcher(private_addresses=True, stats=stats)) as fetcher:
        fetcher.fetch_all(queries)
    assert stats.counts()["read"] == (2 * len(IMAGE), 0.0)
    assert stats.counts()["retry"] == (2, 0.0)
