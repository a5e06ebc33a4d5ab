"""What is made on first use is made once, by however many threads that ask at the same moment."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from pscr_engine.host import MadeOnce
from pscr_engine.stores import client, event_loop

BARRIERS = int(os.environ.get("PSCR_TEST_BARRIERS", "500"))
"""How often eight threads ask at once. `PSCR_TEST_BARRIERS=10000` takes a minute or two."""


@pytest.fixture
def restless():
    """Let threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def asked_at_once(ask, threads=8):
    """Call a function from several threads that start together; return the different results."""
    barrier, results = threading.Barrier(threads), []

    def one():
        barrier.wait()
        results.append(ask())

    workers = [threading.Thread(target=one) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == threads
    return {id(result) for result in results}


def end(loop):
    """Stop a loop and close its files, of which a process can't have thousands open."""
    loop.call_soon_threadsafe(loop.stop)
    while loop.is_running():
        time.sleep(0)
    loop.close()


@pytest.mark.medium
def test_one_event_loop_for_all_threads(restless):
    begun, passed = time.monotonic(), 0
    for _ in range(BARRIERS):
        loop = event_loop._loop()
        event_loop._loop.cache_clear()
        assert len(asked_at_once(event_loop._loop)) == 1
        end(loop)
        passed += 1
    print(f"{passed} barriers of 8 threads, one loop each: {time.monotonic() - begun:.1f} s")
    assert passed == BARRIERS


@pytest.mark.medium
def test_one_object_in_thousands_of_races(restless):
    made = []

    @MadeOnce
    def make(name):
        made.append(name)
        return object()

    for index in range(2000):
        assert len(asked_at_once(lambda index=index: make(index), threads=4)) == 1
    assert made == list(range(2000))
    assert make(3) is make(3) is not make(4)
    make.cache_clear()
    assert make(3) is make(3)
    assert made[-1] == 3


def test_one_client_per_bucket(s3, monkeypatch, restless):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    client.bucket_client.cache_clear()
    assert len(asked_at_once(lambda: client.bucket_client("s3", "b", "images"))) == 1
    assert client.bucket_client("s3", "b", "images") is not client.bucket_client("s3", "b", "files")
    client.bucket_client.cache_clear()


def test_a_failure_is_not_kept():
    outcomes = iter([ValueError("no"), "yes"])

    @MadeOnce
    def make():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.raises(ValueError, match="no"):
        make()
    assert make() == make() == "yes"
