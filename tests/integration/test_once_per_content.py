"""`score --once-per-content`: real runs over images that come again."""

import json

import pytest

from ..helpers.images import encoded, pixels
from ..helpers.runs import rows, write_manifest
from ..helpers.tiny import make_bundle

OF_CONTENT = ["score", "score_std", "status", "error", "width", "height"]


@pytest.fixture
def place(tmp_path):
    """Make a folder with a bundle, and a list of 120 rows: a dozen images, two of them broken, under many names."""
    make_bundle(tmp_path / "model.pscr")
    images = tmp_path / "images"
    images.mkdir()
    contents = [encoded(pixels(40 + index % 5, 50, index)) for index in range(10)]
    contents += [b"no image", contents[0][:200]]
    names = []
    for row in range(120):
        names.append(f"{row:03d}.png")
        (images / names[-1]).write_bytes(contents[row * 7 % 12])
    names[50] = "missing.png"
    write_manifest(images / "m.csv", names)
    return tmp_path


def score(cli, out, *options):
    command = ("score", "images/m.csv", "--out", out, "--devices", "cpu", "--chunk-rows", "25", *options)
    outcome = cli(*command)
    assert outcome.returncode == 0, outcome.stderr
    return rows(out)


def near(row, other):
    assert {name for name, value in row.items() if value is None} == {name for name in other if other[name] is None}
    for name, value in row.items():
        assert value == (pytest.approx(other[name], abs=1e-5) if isinstance(value, float) else other[name])


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_rows_of_equal_images_are_equal_and_fewer_are_scored(cli, place, devices):
    whole = score(cli, place / "whole", "--bundle", "model.pscr")
    once = score(cli, place / "once", "--bundle", "model.pscr", "--once-per-content", "--devices", devices)
    assert [row["row"] for row in once] == list(range(120))
    by_content = {}
    for row, other in zip(once, whole, strict=True):
        near(row, other)
        if row["status"] != "missing":
            by_content.setdefault(row["row"] * 7 % 12, set()).add(tuple(row[name] for name in OF_CONTENT))
    facts = json.loads((place / "once" / "_SUCCESS").read_text())
    if devices == "cpu":
        assert [len(results) for results in by_content.values()] == [1] * 12
    # Images under way together with their first are scored, too: as many as the queues hold.
    assert 0 < facts["repeated"] <= 119 - 12
    scored = facts["stages"]["infer"]["items"]
    assert 99 - facts["repeated"] <= scored < 99
    assert facts["status"] == {"missing": 1, "ok": 99, "undecodable": 20}
    assert "repeated" not in json.loads((place / "whole" / "_SUCCESS").read_text())


def test_features_several_bundles_and_digests(cli, place):
    make_bundle(place / "other.pscr", sampling="nops", exemplars=7)
    both = ("--bundle", "a=model.pscr", "--bundle", "b=other.pscr", "--known-by", "content")
    whole = score(cli, place / "whole", *both, "--features")
    once = score(cli, place / "once", *both, "--features", "--once-per-content")
    for row, other in zip(once, whole, strict=True):
        for name in ("features_a", "features_b"):
            assert row.pop(name) == pytest.approx(other.pop(name), abs=1e-5)
        near(row, other)
        assert (row["score_b"] is None) == (row["status"] != "ok")
    assert json.loads((place / "once" / "_SUCCESS").read_text())["repeated"] > 0


def test_a_run_may_be_gone_on_with_with_and_without(cli, place):
    whole = score(cli, place / "out", "--bundle", "model.pscr")
    (place / "out" / "_SUCCESS").unlink()
    (place / "out" / "part-000001.parquet").unlink()
    again = score(cli, place / "out", "--bundle", "model.pscr", "--once-per-content")
    for row, other in zip(again, whole, strict=True):
        near(row, other)
