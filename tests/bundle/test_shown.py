"""A bundle that was fetched is called by its URI, wherever users read of it."""

from __future__ import annotations

import json

import pytest

from pscr_engine.bundle import Bundle
from pscr_engine.errors import BundleError

from ..helpers.images import encoded, pixels
from ..helpers.tiny import make_bundle


@pytest.fixture
def uri(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_bundle(tmp_path / "model.pscr")
    for file in (tmp_path / "model.pscr").rglob("*"):
        if file.is_file():
            bucket.put(f"m/model.pscr/{file.relative_to(tmp_path / 'model.pscr')}", file.read_bytes())
    return f"{bucket.uri}/m/model.pscr"


def test_messages_name_the_uri(bucket, uri, tmp_path):
    bundle = Bundle.open(uri)
    assert bundle.shown == uri
    with pytest.raises(BundleError, match=f"^{uri}: no precision fp8, only"):
        bundle.graph_path("fp8")
    (bundle.path / "exemplars.parquet").unlink(missing_ok=True)
    with pytest.raises(BundleError, match=f"^{uri}: exemplars.parquet"):
        bundle.exemplar_files()
    bucket.put("m/model.pscr/exemplars.safetensors", b"damaged")
    (bundle.path / "exemplars.safetensors").write_bytes(b"damaged")
    with pytest.raises(BundleError) as raised:
        Bundle.open(uri)
    assert uri in str(raised.value)
    assert "cache" not in str(raised.value)
    local = Bundle.open(tmp_path / "model.pscr")
    assert local.shown == str(tmp_path / "model.pscr")


@pytest.mark.slow
def test_inspect_and_run_json_name_the_uri(uri, start, tmp_path):
    out, err = start("inspect", uri).communicate(timeout=120)
    assert f"{uri} (all digests match)" in out, err
    (tmp_path / "a.png").write_bytes(encoded(pixels(40, 40)))
    (tmp_path / "m.csv").write_text("path\na.png\n")
    _, err = start("score", "--manifest", "m.csv", "--bundle", uri, "--devices", "cpu").communicate(timeout=200)
    run = json.loads((tmp_path / "scores" / "_run.json").read_text())
    assert run["bundle"]["path"] == run["settings"]["bundle"] == uri
    assert "/bundles/" not in err + json.dumps(run)
