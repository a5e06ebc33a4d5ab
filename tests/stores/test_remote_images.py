"""Fetching images from a store: limits, order, what is asked of the store."""

from __future__ import annotations

from threading import Event

import pytest

from pscr_engine.records import MAX_FILE_BYTES, Query
from pscr_engine.stages.fetch import Fetcher
from pscr_engine.stores import client
from pscr_engine.stores.remote_images import IN_FLIGHT, RemoteImages


@pytest.fixture
def through_proxy(bucket, proxy, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    client.bucket_client.cache_clear()
    return proxy


def queries(bucket, names):
    return [Query(row, uri=f"{bucket.uri}/{name}") for row, name in enumerate(names)]


def test_many_at_once_but_not_too_many(bucket, through_proxy):
    for index in range(10):
        bucket.put(f"{index}.png", bytes([index]) * 1000)
    asked = queries(bucket, [f"{row % 10}.png" for row in range(300)])
    Fetcher().fetch_all(asked)
    assert [query.data[0] for query in asked] == [row % 10 for row in range(300)]
    assert 8 < through_proxy.most_under_way <= IN_FLIGHT


def test_an_object_over_the_limit_is_not_downloaded(bucket, through_proxy):
    bucket.put("large.png", b"x" * 50_000_000)
    (query,) = queries(bucket, ["large.png"])
    RemoteImages().fetch([query], 1000, 10**9, Event())
    assert query.status == "too_large"
    assert query.error == "50,000,000 bytes, over the limit of 1,000"
    assert MAX_FILE_BYTES == 512 * 2**20


def test_large_images_are_left_until_they_are_needed(bucket):
    bucket.put("large.png", b"x" * 40_000_000)
    fetcher, asked = Fetcher(), queries(bucket, ["large.png"] * 4)
    fetcher.fetch_all(asked)
    assert sum(query.data is not None for query in asked) == 1
    for query in asked:
        if query.data is None:
            fetcher.fetch(query)
        assert query.ok
        assert query.bytes_held == 40_000_000
        query.data = b""
    fetcher.close()


def test_failed_queries_are_not_asked_for(bucket, through_proxy):
    (query,) = queries(bucket, ["x.png"])
    query.fail("unreadable", "before")
    Fetcher().fetch_all([query])
    assert query.error == "before"
    assert not through_proxy.seen
