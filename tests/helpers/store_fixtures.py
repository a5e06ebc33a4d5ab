"""Fixtures: an object store on loopback, buckets in it, a proxy before it, and the real command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pscr_engine.stores import client

from .object_store import S3, Bucket, Proxy, proxy_before, s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def proxy(s3: S3) -> Iterator[Proxy]:
    with proxy_before(s3) as proxy:
        yield proxy


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Create a bucket of the test's own; this process finds it by the environment."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    client.bucket_client.cache_clear()
    return s3.bucket()


@pytest.fixture
def start(tmp_path: Path, s3: S3) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the real command line in the test's folder, with the endpoint in its environment."""
    processes = []

    def run(*arguments: object, url: str | None = None, **environment: str) -> subprocess.Popen[str]:
        given = {
            **os.environ,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "PSCR_ENGINE_LEASE_SECONDS": "8",
            **s3.environment(url),
            **environment,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "pscr_engine", *map(str, arguments)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in given.items() if value},
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def command(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as `start` does, and wait for its end."""

    def run(*arguments: object, url: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, url=url, **environment)
        out, err = process.communicate(timeout=720)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run
