"""Places in object stores."""

from __future__ import annotations

import json
import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.errors import UsageError
from pscr_engine.records import Query
from pscr_engine.stores import objects
from pscr_engine.stores.client import bucket_client
from pscr_engine.stores.remote_images import WEB, RemoteImages, place_of
from pscr_engine.stores.uri import StorePath, is_stored, place


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://b/k/x.png", ("s3", "b", "k/x.png")),
        ("S3://b/k//x%20 ?#.png", ("s3", "b", "k//x%20 ?#.png")),
        ("s3a://b", ("s3", "b", "")),
        ("gs://b/k/", ("gs", "b", "k")),
        ("gcs://b/k", ("gs", "b", "k")),
        ("az://container/k", ("az", "container", "k")),
        ("abfs://container/k", ("az", "container", "k")),
    ],
)
def test_reading_a_uri(uri, parts):
    path = StorePath.parse(uri)
    assert (path.scheme, path.bucket, path.key) == parts
    assert StorePath.parse(str(path)) == path == pickle.loads(pickle.dumps(path))
    assert is_stored(uri)
    assert place(uri, "--out") == path


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "az:///"])
def test_no_bucket(uri):
    with pytest.raises(UsageError, match=r"out .*names no bucket"):
        place(uri, "--out")


def test_other_places():
    assert place("scores", "--out") == Path("scores")
    assert place("file:///a%20b", "--out") == Path("/a b")
    assert place("a:b", "--out") == Path("a:b")
    for uri in ("http://host/out", "ftp://host/out"):
        with pytest.raises(UsageError, match=r"can't be on (http|ftp)://; use a path, s3://, gs:// or az://"):
            place(uri, "--out")


NAMES = st.text(st.characters(blacklist_characters="/", min_codepoint=33, max_codepoint=1000), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@given(st.lists(NAMES, max_size=3), st.lists(NAMES, min_size=1, max_size=3))
def test_relative_paths(prefix, names):
    base = StorePath("s3", "b", "/".join(prefix))
    found = base.joined("/".join(names))
    assert found.key == "/".join([*prefix, *names])
    assert base.contains(found)
    assert base.relative(found) == "/".join(names)
    assert base.joined("/".join(["x", "..", ".", *names])) == found
    assert found.name == names[-1]
    with pytest.raises(ValueError, match="leads out of s3://b"):
        base.joined("../" * (len(prefix) + 1) + "x")


def test_a_prefix_is_not_part_of_a_name():
    assert not StorePath("s3", "b", "out").contains(StorePath("s3", "b", "outside/x"))
    assert not StorePath("s3", "b", "out").contains(StorePath("s3", "c", "out/x"))


def test_what_is_lost_as_a_whole():
    assert place_of("s3://b/k/x") == place_of("s3://b/y") == "s3://b"
    assert place_of("https://host/x") == place_of("http://other/y") == WEB


@pytest.fixture
def recorder(monkeypatch):
    """Answer every GET with the same bytes, and keep what was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            body = b"image" if self.command in ("GET", "HEAD") else b""
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"x"')
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            self.send_header("x-goog-generation", "17")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_PUT = do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bucket_client.cache_clear()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()
    bucket_client.cache_clear()


# As for emulators: without the exchange of a signed statement for a token.
SERVICE_ACCOUNT = {
    "gcs_base_url": "{}",
    "disable_oauth": True,
    "client_email": "",
    "private_key": "",
    "private_key_id": "",
}


@pytest.mark.parametrize(
    ("uri", "environment", "path", "header"),
    [
        (
            "s3://b/k/a b.png",
            {
                "AWS_ENDPOINT_URL": "{}",
                "AWS_ACCESS_KEY_ID": "me",
                "AWS_SECRET_ACCESS_KEY": "x",
                "AWS_REGION": "eu-west-1",
            },
            "/b/k/a%20b.png",
            "AWS4-HMAC-SHA256 Credential=me/",
        ),
        (
            "s3://b/k.png",
            {"AWS_ENDPOINT_URL_S3": "{}", "AWS_SKIP_SIGNATURE": "true"},
            "/b/k.png",
            None,
        ),
        (
            "az://container/k/x.png",
            {
                "AZURE_STORAGE_ENDPOINT": "{}",
                "AZURE_STORAGE_ACCOUNT_NAME": "account",
                "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
            },
            "/container/k/x.png",
            "SharedKey account:",
        ),
        (
            "gs://b/k/x.png",
            {"GOOGLE_BASE_URL": "{}", "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(SERVICE_ACCOUNT)},
            "/b/k/x.png",
            None,
        ),
    ],
)
def test_endpoints_and_credentials_are_the_environments(monkeypatch, recorder, uri, environment, path, header):
    """Check what the clients of Google's and Azure's services would send, since those can't be asked here."""
    url, asked = recorder
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("{}", url))
    query = Query(0, uri=uri)
    RemoteImages().fetch([query], 100, 100, Event())
    assert query.data == b"image", query.error
    ((asked_path, headers),) = asked
    assert unquote(asked_path) == unquote(path)
    found = headers.get("authorization")
    assert found is None if header is None else found.startswith(header)
    # What claims on output folders rest on.
    path = StorePath.parse(uri)
    assert objects.put(path, b"x", "new")
    assert objects.put(path, b"x", objects.look(path))
    created, replaced = asked[-3][1], asked[-1][1]
    if path.scheme == "gs":
        assert (created["x-goog-if-generation-match"], replaced["x-goog-if-generation-match"]) == ("0", "17")
    else:
        assert (created["if-none-match"], replaced["if-match"]) == ("*", '"x"')
