"""Places in object stores."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.errors import UsageError
from pscr_engine.stores.client import bucket_client
from pscr_engine.stores.images import WEB, place_of
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
    with pytest.raises(UsageError, match="--out .*names no bucket"):
        place(uri, "--out")


def test_other_places():
    assert place("scores", "--out") == Path("scores")
    assert place("file:///a%20b", "--out") == Path("/a b")
    assert place("a:b", "--out") == Path("a:b")
    for uri in ("http://host/out", "ftp://host/out"):
        with pytest.raises(UsageError, match="can't be on (http|ftp)://; use a path, s3://, gs:// or az://"):
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
def fresh():
    bucket_client.cache_clear()
    yield
    bucket_client.cache_clear()


def test_stores_are_configured_from_the_environment(monkeypatch, fresh):
    """Google's and Azure's can't be asked here; that their clients take endpoint and credentials can be seen."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert bucket_client("s3", "b", "images").client_options["allow_http"] is True
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:1")
    assert "allow_http" not in bucket_client("s3", "c", "images").client_options
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    azure = bucket_client("az", "container", "images")
    assert azure.config == {"account_name": "account", "account_key": "a2V5", "container_name": "container"}
    google = bucket_client("gs", "b", "files")
    assert google.config == {"bucket": "b"}
    assert bucket_client("gs", "b", "files") is google
