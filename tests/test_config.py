from dataclasses import fields
from pathlib import Path

import pytest

from pscr_engine.config import ScoreConfig
from pscr_engine.errors import UsageError
from pscr_engine.manifests.image_files import FileListManifest


@pytest.mark.parametrize(
    ("rows", "expected"), [(0, 64), (24, 64), (20_000, 100), (20_001, 101), (10**8, 8192), (None, 1024)]
)
def test_chunks_follow_the_manifests_size(rows, expected):
    assert ScoreConfig("m").rows_per_chunk(rows) == expected
    assert ScoreConfig("m", chunk_rows=7).rows_per_chunk(rows) == 7


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 0},
        {"chunk_rows": 0},
        {"max_pixels": 0},
        {"max_failure_rate": 1.1},
        {"overwrite": True, "retry_failed": True},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(UsageError):
        ScoreConfig("m", **settings)


# What the rows don't depend on; `manifest`, `bundle` and `precision` are in the identity by what they stand for.
NOT_IN_IDENTITY = {
    "manifest", "bundle", "out", "columns", "devices", "backend", "precision", "batch_size", "chunk_rows",
    "verify_decoding", "overwrite", "retry_failed", "max_failure_rate", "shard", "runner", "ray",
    "metrics_file", "metrics_port", "metrics_host",
    "once_per_content",
    # In the identity only where they are given: see below.
    "known", "known_by", "known_failed", "patches", "keep_above", "keep_top", "risk",
}  # fmt: skip


def test_every_setting_is_in_the_identity_or_known_not_to_matter():
    identity = ScoreConfig("m").identity(
        bundle_digest="b", manifest=FileListManifest(["a"], Path("x")), precision="fp32", chunk_rows=5
    )
    assert {field.name for field in fields(ScoreConfig)} - NOT_IN_IDENTITY == set(identity) & {
        field.name for field in fields(ScoreConfig)
    } - NOT_IN_IDENTITY


def test_what_the_rows_do_not_depend_on_may_change():
    def identity(**settings):
        return ScoreConfig("m", **settings).identity(
            bundle_digest="b", manifest=FileListManifest(["a"], Path("x")), precision="fp32", chunk_rows=5
        )

    assert identity() == identity(batch_size=3, devices="cpu,cpu", overwrite=True, max_failure_rate=0.5)
    assert identity() == identity(metrics_file="m.prom", metrics_port=0, metrics_host="0.0.0.0")
    for settings in ({"features": True}, {"small_images": "error"}, {"max_pixels": 5}, {"known_by": "content"}):
        assert identity() != identity(**settings)


def test_how_many_patches_are_scored_is_in_the_identity_only_if_it_is_said():
    def identity(**settings):
        return ScoreConfig("m", **settings).identity(
            bundle_digest="b", manifest=FileListManifest(["a"], Path("x")), precision="fp32", chunk_rows=5
        )

    assert not set(identity()) & {"patches", "keep_above", "keep_top", "risk"}
    assert identity(keep_above=3.0)["risk"] == 0.005
    settings = (
        {"patches": 3},
        {"patches": 4},
        {"keep_above": 3.0},
        {"keep_above": 3.0, "risk": 0.01},
        {"keep_top": 0.1},
    )
    found = [identity(**each) for each in ({}, *settings)]
    assert all(one != other for index, one in enumerate(found) for other in found[:index])


def test_known_runs_are_in_the_identity_only_if_there_are_any():
    def identity(*digests, **settings):
        return ScoreConfig("m", **settings).identity(
            bundle_digest="b",
            manifest=FileListManifest(["a"], Path("x")),
            precision="fp32",
            chunk_rows=5,
            known=digests,
        )

    assert not any(name.startswith("known") for name in identity())
    known = identity("1", known=["old"])
    assert (known["known"], known["known_by"], known["known_failed"]) == (["1"], "path", False)
    assert ScoreConfig("m", known="old").known == (Path("old"),)
    for other in (identity("2", known="old"), identity("1", known="old", known_by="id")):
        assert other != known
    for settings in ({"known_by": "id"}, {"known_failed": True}, {"known": "scores"}, {"known_by": "name"}):
        with pytest.raises(UsageError):
            ScoreConfig("m", **settings)
