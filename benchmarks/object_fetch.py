"""Measure fetching images from an object store: by pscr-engine and by s3fs, from the same loopback endpoint.

python -m benchmarks.object_fetch [--s3fs-python PYTHON]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import md5
from http.client import HTTPConnection
from typing import Any

from .common import record, spread, versions

OBJECTS, SIZE, FETCHES, ROUNDS = 500, 60_000, 1500, 3
MOTO_FETCHES = 500
BUCKET = "images-of-benchmark"
METHOD = (
    f"{OBJECTS} objects of {SIZE:,} bytes in one bucket, fetched {FETCHES} times ({MOTO_FETCHES} from moto), into "
    "memory. ours: `pscr_engine.stages.fetch.Fetcher.fetch_all`, as in a run: micro-batches of 16 in four "
    "threads, 64 requests in flight at most. s3fs: `cat` of 500 paths at a time, with its default of 10 "
    "connections and with 64; it asks for each object twice, HEAD and GET. Each way in a fresh process, which "
    "first fetches 64 objects that don't count; all ways in turn, in rounds. Endpoints, on loopback, on the same "
    "two cores as the client: moto's server; plain, which answers from memory; latency, which is plain and waits "
    "30 ms before each answer, as a store in the same region does. cpu_ms: of the client's process, per image."
)

_OURS = """
import sys, time, json
from concurrent.futures import ThreadPoolExecutor
from pscr_engine.records import Query
from pscr_engine.stages.fetch import Fetcher
uris, fetcher = json.load(sys.stdin), Fetcher()
def run(uris):
    queries = [Query(row, uri="s3://" + uri) for row, uri in enumerate(uris)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(fetcher.fetch_all, [queries[i : i + 16] for i in range(0, len(queries), 16)]))
    assert all(len(query.data) == SIZE for query in queries)
"""
_S3FS = """
import sys, time, json
import s3fs
uris, fs = json.load(sys.stdin), s3fs.S3FileSystem(config_kwargs=OPTIONS)
def run(uris):
    # In slices without a path twice: cat() returns a dict by path, and fetches each path once.
    for start in range(0, len(uris), OBJECTS):
        contents = fs.cat(uris[start : start + OBJECTS])
        assert all(len(data) == SIZE for data in contents.values())
"""
_TIMED = """
run(uris[:64])
begun, cpu = time.perf_counter(), time.process_time()
run(uris)
print(json.dumps({"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}))
"""


@contextmanager
def plain_server(latency: float) -> Iterator[int]:
    """Answer every GET of an object from memory, `latency` seconds later; yields the port."""
    body = os.urandom(SIZE)
    head = (
        f'HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nETag: "{md5(body).hexdigest()}"\r\n'
        "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Type: binary/octet-stream\r\n\r\n"
    ).encode()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.buffer = transport, b""

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            while b"\r\n\r\n" in self.buffer:
                request, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
                if latency:
                    loop.call_later(latency, self.answer, request)
                else:
                    self.answer(request)

        def answer(self, request: bytes) -> None:
            self.transport.write(head)
            if not request.startswith(b"HEAD"):
                self.transport.write(body)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Protocol, "127.0.0.1", 0, backlog=512))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@contextmanager
def moto_server() -> Iterator[int]:
    """Start moto's S3 endpoint and put the objects into it; yields the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                _put(port, f"/{BUCKET}", b"")
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        body = os.urandom(SIZE)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda name: _put(port, f"/{name}", body), names()))
        yield port
    finally:
        process.kill()
        process.wait()


def _put(port: int, path: str, body: bytes) -> None:
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("PUT", path, body)
    assert connection.getresponse().status == 200
    connection.close()


def names() -> list[str]:
    return [f"{BUCKET}/image-{index:05d}.jpg" for index in range(OBJECTS)]


def measure(python: str, code: str, port: int, fetches: int) -> dict[str, float]:
    """Fetch in a fresh process; return images per second and milliseconds of processor time per image."""
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    uris = (names() * (fetches // OBJECTS + 1))[:fetches]
    outcome = subprocess.run(
        [python, "-c", f"SIZE, OBJECTS = {SIZE}, {OBJECTS}\n{code}{_TIMED}"],
        input=json.dumps(uris),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr[-500:]
    spent = json.loads(outcome.stdout)
    return {"rate": fetches / spent["seconds"], "cpu_ms": spent["cpu"] / fetches * 1000}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--s3fs-python", default=sys.executable, help="a Python that has s3fs")
    python = parser.parse_args().s3fs_python
    ways = {
        "ours": (sys.executable, _OURS),
        "s3fs": (python, f"OPTIONS = None\n{_S3FS}"),
        "s3fs, 64 connections": (python, f"OPTIONS = {{'max_pool_connections': 64}}\n{_S3FS}"),
    }
    endpoints = {
        "moto": (moto_server(), MOTO_FETCHES),
        "plain": (plain_server(0.0), FETCHES),
        "latency": (plain_server(0.03), FETCHES),
    }
    figures: dict[str, Any] = {}
    for name, (server, fetches) in endpoints.items():
        with server as port:
            runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, (interpreter, code) in ways.items():
                    runs[way].append(measure(interpreter, code, port, fetches))
                    print(name, way, runs[way][-1], flush=True)
        figures[name] = {
            way: {
                "images_per_second": spread([run["rate"] for run in each]),
                "cpu_ms": spread([run["cpu_ms"] for run in each]),
            }
            for way, each in runs.items()
        }
        for way in list(ways)[1:]:
            pairs = zip(runs["ours"], runs[way], strict=True)
            figures[name][f"ours to {way}"] = spread([ours["rate"] / theirs["rate"] for ours, theirs in pairs])
    installed = subprocess.run(
        [python, "-c", "import s3fs, aiobotocore; print(s3fs.__version__, aiobotocore.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    others = {**versions("obstore", "moto"), "s3fs": installed[0], "aiobotocore": installed[1]}
    print(record("object-fetch", METHOD, {"versions_compared": others, "endpoints": figures}))


if __name__ == "__main__":
    main()
