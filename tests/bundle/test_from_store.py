"""Bundles in a store, kept in the user's cache by digest."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pscr_engine.bundle import Bundle
from pscr_engine.errors import BundleError

from ..helpers.tiny import make_bundle


@pytest.fixture
def model(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = make_bundle(tmp_path / "model.pscr")
    for file in bundle.path.iterdir():
        bucket.put(f"models/tiny/{file.name}", file.read_bytes())
    return bundle


def cached(tmp_path):
    return tmp_path / "cache" / "pscr-engine" / "bundles"


def test_fetched_once_and_verified(model, bucket, tmp_path, proxy, monkeypatch):
    opened = Bundle.open(f"{bucket.uri}/models/tiny/")
    assert opened.digest == model.digest
    assert opened.path == cached(tmp_path) / model.digest
    bucket.remove("models/tiny/scorer.fp32.onnx")
    assert Bundle.open(f"{bucket.uri}/models/tiny").digest == model.digest  # from the cache


def test_a_damaged_cache_is_mended(model, bucket, tmp_path):
    graph = Bundle.open(f"{bucket.uri}/models/tiny").path / "scorer.fp32.onnx"
    graph.write_bytes(b"x")
    assert Bundle.open(f"{bucket.uri}/models/tiny").digest == model.digest
    assert graph.read_bytes() == (model.path / "scorer.fp32.onnx").read_bytes()


def test_a_damaged_bundle_is_not_kept_quiet(model, bucket):
    bucket.put("models/tiny/scorer.fp32.onnx", b"x")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        Bundle.open(f"{bucket.uri}/models/tiny")
    bucket.remove("models/tiny/scorer.fp32.onnx")
    with pytest.raises(BundleError, match=r"models/tiny: scorer\.fp32\.onnx is missing; copy the bundle again, whole"):
        Bundle.open(f"{bucket.uri}/models/tiny")
    with pytest.raises(BundleError, match=r"models/none: no bundle\.json there"):
        Bundle.open(f"{bucket.uri}/models/none")


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a/../../../escaped", "bundle.json"])
def test_names_that_lead_out_are_refused_before_anything_is_written(model, bucket, tmp_path, name):
    value = json.loads(bucket.get("models/tiny/bundle.json"))
    value["files"][name] = {"sha256": "0", "bytes": 1}
    bucket.put("models/tiny/bundle.json", json.dumps(value).encode())
    with pytest.raises(BundleError, match="names a file outside the bundle"):
        Bundle.open(f"{bucket.uri}/models/tiny")
    assert not [file for file in tmp_path.rglob("*") if "escaped" in file.name]


def test_several_processes_at_once(model, bucket, tmp_path):
    code = f"from pscr_engine.bundle import Bundle; print(Bundle.open('{bucket.uri}/models/tiny').digest)"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outs = [process.communicate()[0].strip() for process in processes]
    assert outs == [model.digest] * 4
    assert sorted(entry.name for entry in cached(tmp_path).iterdir()) == sorted([model.digest, f"{model.digest}.lock"])


def test_inspect_takes_a_uri(model, bucket, command):
    outcome = command("inspect", f"{bucket.uri}/models/tiny")
    assert outcome.returncode == 0, outcome.stderr
    assert model.digest in outcome.stdout
