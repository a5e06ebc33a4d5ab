"""The service as a real process on loopback: right answers under load, limits, and an orderly end."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pscr_engine import Scorer

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("multipart")

FILE = Path(__file__).parents[2] / "examples" / "service.py"
MAX_BYTES, MAX_REQUESTS = 300_000, 8


def form(data, name="image"):
    head = f'--line\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'.encode()
    return head + data + b"\r\n--line--\r\n"


def ask(port, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": "multipart/form-data; boundary=line", **dict(headers)})
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read() or b"null")
    finally:
        connection.close()


def post(port, data, **more):
    return ask(port, "POST", "/score", form(data, **more))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("m") / "m.pscr").path


@pytest.fixture(scope="module")
def port(bundle):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    limits = ["--max-requests", str(MAX_REQUESTS), "--max-upload-bytes", str(MAX_BYTES)]
    command = [sys.executable, FILE, "--bundle", bundle, "--device", "cpu", "--port", str(number), *limits]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(600):
            try:
                assert ask(number, "GET", "/health")[0] == 200
                break
            except OSError:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.1)
        yield number
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert "Application shutdown complete" in output
        assert "Traceback" not in output
    finally:
        process.kill()
        process.wait()


@pytest.mark.medium
def test_answers_are_the_scorers(port, bundle):
    images = [encoded(pixels(60, 50, seed), "JPEG") for seed in range(12)]
    with Scorer.open(bundle, device="cpu") as scorer:
        expected = [image.score for image in scorer.score(images)]
    with ThreadPoolExecutor(MAX_REQUESTS) as callers:
        answers = list(callers.map(lambda number: post(port, images[number % 12]), range(72)))
    assert {status for status, _, _ in answers} == {200}
    assert [body["score"] for _, _, body in answers] == expected * 6
    assert (answers[0][2]["width"], answers[0][2]["height"]) == (50, 60)
    health = ask(port, "GET", "/health")[2]
    assert health == {"precision": "fp32", "device": "cpu", "waiting": 0}


def test_what_is_no_image_is_said(port):
    status, _, body = post(port, b"broken")
    assert (status, body["detail"]["status"]) == (422, "undecodable")
    status, _, body = post(port, b"")
    assert (status, body["detail"]["error"]) == (422, "the file is empty")
    assert post(port, b"x", name="picture")[0] == 422
    assert ask(port, "POST", "/score", b"no form")[0] in (400, 422)
    assert ask(port, "GET", "/score")[0] == 405


def test_large_uploads_are_turned_away(port):
    status, _, body = post(port, b"x" * MAX_BYTES)
    assert (status, body["detail"]) == (413, "an upload may have 300,000 bytes")
    # Without its length in the header, it is counted as it comes.
    upload = form(b"x" * (MAX_BYTES + 10_000))
    chunks = (upload[start : start + 50_000] for start in range(0, len(upload), 50_000))
    status, _, body = ask(port, "POST", "/score", chunks)
    assert (status, body["detail"]) == (413, "an upload may have 300,000 bytes")
    bomb = encoded(pixels(40, 40))
    wide = bomb[:16] + (20_000).to_bytes(4, "big") * 2 + bomb[24:]
    status, _, body = post(port, wide)
    assert status in (413, 422)  # the header says 400 megapixels


def test_too_many_at_once_are_told_to_come_again(port):
    body = form(encoded(pixels(60, 50)))
    slow = []
    for _ in range(MAX_REQUESTS):  # uploads that never end
        connection = socket.create_connection(("127.0.0.1", port))
        head = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: multipart/form-data; boundary=line\r\n\r\n"
        connection.sendall(head.encode() + body[:100])
        slow.append(connection)
    status, headers = 200, {}
    for _ in range(100):
        status, headers, answer = ask(port, "POST", "/score", body)
        if status == 503:
            break
        time.sleep(0.05)
    assert (status, headers["Retry-After"], answer["detail"]) == (503, "1", "too many requests: try again")
    assert ask(port, "GET", "/health")[0] == 200
    slow[0].sendall(body[100:])
    assert slow[0].recv(15) == b"HTTP/1.1 200 OK"
    for connection in slow:
        connection.close()
    for _ in range(100):
        status = ask(port, "POST", "/score", body)[0]
        if status == 200:
            break
        time.sleep(0.05)
    assert status == 200
