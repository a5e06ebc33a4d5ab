"""Small pictures of images that lie anywhere: in a folder, in an object store, on the web, or nowhere any more."""

from __future__ import annotations

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pscr_engine import Scorer
from pscr_engine.config import ScoreConfig
from pscr_engine.errors import MissingDependencyError
from pscr_engine.manifests import ManifestOptions
from pscr_engine.output.run_reader import RunReader
from pscr_engine.report.thumbnails import make_thumbnails

from ..helpers.images import encoded, pixels

IMAGES = {f"{index}.png": encoded(pixels(40 + index, 50, index)) for index in range(20)}


def thumbnails_of(manifest: object, bundle: Path, out: Path, **columns: bool):
    """Score a manifest, and make the small pictures of all its rows."""
    config = ScoreConfig(str(manifest), bundle=str(bundle), out=out, devices="cpu", columns=ManifestOptions(**columns))
    assert Scorer.score_manifest(config).status == {"ok": len(IMAGES)}
    return again(out)


def again(out: Path):
    run = RunReader.open(out)
    paths = {row: line["path"] for row, line in run.lines(range(run.end()), ["path"]).items()}
    return make_thumbnails(run, paths, None)


@pytest.mark.parametrize("as_table", [False, True], ids=["prefix", "table of URIs"])
def test_images_in_an_object_store_are_shown(bucket, tiny, tmp_path, as_table):
    for name, data in IMAGES.items():
        bucket.put(f"photos/{name}", data)
    manifest = f"{bucket.uri}/photos/"
    if as_table:
        manifest = tmp_path / "m.csv"
        manifest.write_text("path\n" + "".join(f"{bucket.uri}/photos/{name}\n" for name in IMAGES))
    shown, note = thumbnails_of(manifest, tiny.path, tmp_path / "scores")
    assert len(shown) == len(IMAGES)
    assert note is None
    assert all(picture.uri.startswith("data:image/jpeg;base64,") for picture in shown.values())
    gone = "photos/3.png"
    bucket.remove(gone)
    shown, _ = again(tmp_path / "scores")
    assert sorted(picture.problem for picture in shown.values() if picture.problem) == ["image not found"]


def test_a_store_out_of_reach_costs_the_pictures_and_not_the_report(bucket, s3, tiny, tmp_path, monkeypatch):
    from pscr_engine.stores import client

    for name, data in IMAGES.items():
        bucket.put(f"photos/{name}", data)
    thumbnails_of(f"{bucket.uri}/photos/", tiny.path, tmp_path / "scores")
    for name, value in s3.environment("http://127.0.0.1:9").items():  # nobody listens there
        monkeypatch.setenv(name, value)
    client.bucket_client.cache_clear()
    shown, note = again(tmp_path / "scores")
    client.bucket_client.cache_clear()
    assert note is None
    assert {picture.problem for picture in shown.values()} == {"unreadable now"}


@pytest.mark.medium
def test_images_on_the_web_are_shown_if_the_run_had_them(tiny, tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    for name, data in IMAGES.items():
        (folder / name).write_bytes(data)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    manifest = tmp_path / "m.csv"
    manifest.write_text("path\n" + "".join(f"http://127.0.0.1:{server.server_port}/{name}\n" for name in IMAGES))
    try:
        shown, note = thumbnails_of(
            manifest, tiny.path, tmp_path / "scores", allow_http=True, allow_private_addresses=True
        )
    finally:
        server.shutdown()
        server.server_close()
    assert note is None
    assert not [picture.problem for picture in shown.values() if picture.problem]


def test_a_reason_is_never_ok(tiny, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, data in IMAGES.items():
        (folder / name).write_bytes(data)
    thumbnails_of(folder, tiny.path, tmp_path / "scores")
    (folder / "3.png").unlink()
    (folder / "4.png").write_bytes(b"no image")
    (folder / "5.png").unlink()
    (folder / "5.png").mkdir()
    shown, _ = again(tmp_path / "scores")
    problems = sorted(picture.problem for picture in shown.values() if picture.problem)
    assert problems == ["image not found", "undecodable now", "unreadable now"]


def test_without_the_package_for_stores_a_note_says_what_to_install(bucket, tiny, tmp_path, monkeypatch):
    for name, data in IMAGES.items():
        bucket.put(f"photos/{name}", data)
    thumbnails_of(f"{bucket.uri}/photos/", tiny.path, tmp_path / "scores")

    def missing(self, queries, *_):
        raise MissingDependencyError("obstore", "an object store", "stores")

    monkeypatch.setattr("pscr_engine.stores.remote_images.RemoteImages.fetch", missing)
    shown, note = again(tmp_path / "scores")
    assert "pscr-engine[stores]" in note
    assert {picture.problem for picture in shown.values()} == {"image can’t be fetched"}
