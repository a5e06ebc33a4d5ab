"""Several bundles in one pass, as a user runs them: real processes, real files, tiny networks."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..helpers.images import encoded, pixels, write_troublesome
from ..helpers.tiny import make_bundle

SAMPLINGS = ("ops", "nops", "rps", "none")


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Return a folder of images, some below any patch size, some broken, and a list of them."""
    folder = tmp_path_factory.mktemp("collection")
    for index in range(40):
        (folder / f"{index:03d}.png").write_bytes(encoded(pixels(20 + 3 * index, 25 + 2 * index, index)))
    write_troublesome(folder / "odd")
    names = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
    with (folder / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path"], *([name] for name in [*names, "not-there.png", names[0]])])
    return folder


def table(out):
    return pa.concat_tables(pq.read_table(part) for part in sorted(out.glob("part-*.parquet")))


def score(cli, collection, out, *bundles, options=()):
    given = [each for bundle in bundles for each in ("--bundle", bundle)]
    return cli("score", collection / "m.csv", *given, "--out", out, "--chunk-rows", "16", *options)


@pytest.fixture
def two(tmp_path):
    """Make two bundles whose sampling and exemplars differ."""
    make_bundle(tmp_path / "first.pscr")
    make_bundle(tmp_path / "second.pscr", sampling="nops", exemplars=7)
    return tmp_path / "first.pscr", tmp_path / "second.pscr"


@pytest.mark.parametrize(
    ("samplings", "options"),
    [
        (("ops", "ops"), ("--features",)),
        (("rps", "none"), ()),
        (("nops", "rps"), ("--batch-size", "3")),
        (("ops", "none"), ("--small-images", "error")),
    ],
)
def test_scores_are_those_of_runs_of_their_own(cli, tmp_path, collection, samplings, options):
    bundles = [tmp_path / f"m{index}.pscr" for index in range(len(samplings))]
    for index, (bundle, sampling) in enumerate(zip(bundles, samplings, strict=True)):
        make_bundle(bundle, sampling=sampling, exemplars=3 + index)
    done = score(cli, collection, "both", *bundles, options=options)
    assert done.returncode == 0, done.stderr
    both = table(tmp_path / "both")
    kinds = ["score", "score_std", *(["features"] if "--features" in options else [])]
    expected = ["row", "path", "score_m0", "score_std_m0", "score_m1", "score_std_m1", "status", "error"]
    expected += ["width", "height", *(["features_m0", "features_m1"] if "--features" in options else []), "stamp"]
    assert both.column_names == expected
    for index, bundle in enumerate(bundles):
        assert score(cli, collection, f"alone{index}", bundle, options=options).returncode == 0
        alone = table(tmp_path / f"alone{index}")
        for kind in kinds:
            assert both.column(f"{kind}_m{index}").equals(alone.column(kind)), kind
        for name in ("row", "path", "status", "error", "width", "height", "stamp"):
            assert both.column(name).equals(alone.column(name)), name


def test_a_single_bundle_is_as_ever(cli, tmp_path, collection, two):
    assert score(cli, collection, "out", two[0]).returncode == 0
    assert table(tmp_path / "out").column_names[2:4] == ["score", "score_std"]
    run = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert "bundles" not in run
    assert run["settings"]["bundle"] == str(two[0])
    assert isinstance(run["identity"]["bundle"], str)


def test_names_come_from_files_or_from_the_user_and_order_is_theirs(cli, tmp_path, collection, two):
    done = score(cli, collection, "out", f"z={two[0]}", two[1])
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out").column_names[2:6] == ["score_second", "score_std_second", "score_z", "score_std_z"]
    run = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert run["settings"]["bundle"] == {"second": str(two[1]), "z": str(two[0])}
    assert set(run["identity"]["bundle"]) == set(run["identity"]["precision"]) == set(run["bundles"]) == {"second", "z"}
    again = score(cli, collection, "out", two[1], f"z={two[0]}")
    assert again.returncode == 0
    assert "complete already" in again.stderr
    other = score(cli, collection, "out", two[1], f"y={two[0]}")
    assert other.returncode == 2
    assert f"go on with --bundle second={two[1]} --bundle z={two[0]}" in other.stderr
    assert score(cli, collection, "out", two[1]).returncode == 2
    assert score(cli, collection, "alone", two[1]).returncode == 0
    assert score(cli, collection, "alone", *two).returncode == 2


def test_what_cannot_be_loaded_ends_the_run_before_it_begins(cli, tmp_path, collection, two):
    (two[1] / "scorer.fp32.onnx").write_bytes(b"damaged")
    for bad, code in ((two[1], 1), (tmp_path / "nothing.pscr", 2)):
        done = score(cli, collection, "out", two[0], bad)
        assert done.returncode == code
        assert len(done.stderr.splitlines()) == 1
        assert bad.name in done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("bundles", "options", "said"),
    [
        (("a.pscr", "x/a.pscr"), (), "a.pscr and x/a.pscr are both called a"),
        (("a.pscr", "A=b.pscr"), (), "are called a and A"),
        (("a.pscr", "std.pscr"), (), "score_std"),
        (("a.pscr", "my-name=b.pscr"), (), "'my-name', can't be part of a column's name"),
        (("a.pscr", "b.pscr"), ("--runner", "ray"), "--runner ray is for runs with one bundle"),
        (("a.pscr", "b.pscr"), ("--known", "earlier"), "--known is for runs with one bundle"),
    ],
)
def test_what_is_refused(cli, tmp_path, collection, bundles, options, said):
    done = score(cli, collection, "out", *bundles, options=options)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_path_that_could_be_a_name_is_asked_about(cli, tmp_path, collection, two):
    two[0].rename(tmp_path / "lr=1.pscr")
    alone = score(cli, collection, "alone", "lr=1.pscr")
    assert alone.returncode == 0, alone.stderr
    assert "score" in table(tmp_path / "alone").column_names
    done = score(cli, collection, "out", "lr=1.pscr", two[1])
    assert done.returncode == 2
    assert "write ./lr=1.pscr" in done.stderr
    assert score(cli, collection, "out", "./lr=1.pscr", two[1]).returncode == 0
    assert "score_lr_1" in table(tmp_path / "out").column_names


def test_commands_that_take_one_bundle_say_so(cli, two):
    for command in (("explain", "x.png"), ("bench",), ("compile",)):
        done = cli(*command, "--bundle", two[0], "--bundle", two[1])
        assert done.returncode == 2
        assert "takes one" in done.stderr


def test_workers_shards_and_retries(cli, tmp_path, collection, two):
    assert score(cli, collection, "whole", *two).returncode == 0
    whole = table(tmp_path / "whole")
    done = score(cli, collection, "workers", *two, options=("--devices", "cpu,cpu"))
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "workers").equals(whole)
    for shard in ("0/2", "1/2"):
        assert score(cli, collection, "shards", *two, options=("--shard", shard)).returncode == 0
    assert table(tmp_path / "shards").equals(whole)
    copy = tmp_path / "copy"
    shutil.copytree(collection, copy)
    assert score(cli, copy, "mended", *two).returncode == 0
    (copy / "not-there.png").write_bytes(encoded(pixels(64, 64, 5)))
    done = score(cli, copy, "mended", *two, options=("--retry-failed",))
    assert done.returncode == 0, done.stderr
    mended = table(tmp_path / "mended").to_pylist()
    assert mended[-2]["status"] == "ok"
    assert None not in (mended[-2]["score_first"], mended[-2]["score_second"])


def test_a_killed_run_goes_on_to_the_same_bytes(cli, tmp_path, two):
    images = tmp_path / "images"
    images.mkdir()
    for index in range(30):
        (images / f"{index:03d}.png").write_bytes(encoded(pixels(400, 400, index)))
    with (images / "m.csv").open("w") as file:
        file.write("path\n" + "".join(f"{row % 30:03d}.png\n" for row in range(1500)))
    assert score(cli, images, "whole", *two).returncode == 0
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pscr_engine", "score", images / "m.csv", "--bundle", two[1], "--bundle", two[0]]
    run = subprocess.Popen(
        [*command, "--out", out, "--chunk-rows", "16"], cwd=tmp_path, env=os.environ, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(out.glob("part-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (out / "_SUCCESS").exists()
    assert score(cli, images, "out", *two).returncode == 0
    for part in sorted((tmp_path / "whole").glob("part-*")):
        assert part.read_bytes() == (out / part.name).read_bytes()


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_select_goes_by_the_score_that_is_named(cli, tmp_path, collection, two, suffix):
    assert score(cli, collection, "out", *two).returncode == 0
    asked = cli("select", "out", "--top", "3")
    assert asked.returncode == 2
    assert "has 2 scores (score_first, score_second): choose one with --score score_first" in asked.stderr
    assert "there is score_first, score_second" in cli("select", "out", "--top", "3", "--score", "score").stderr
    for name in ("first", "second", "first"):  # the last replaces an earlier selection
        kept = cli("select", "out", "--top", "3", "--score", f"score_{name}", "--out", f"kept.{suffix}")
        assert kept.returncode == 0, kept.stderr
        assert f"score_{name} >= " in kept.stdout
    file = tmp_path / f"kept.{suffix}"
    chosen = (
        pq.read_table(file).to_pylist()
        if suffix == "parquet"
        else list(csv.DictReader(file.read_text("utf-8").splitlines()))
    )
    assert list(chosen[0])[1:] == ["score_first", "score_std_first", "score_second", "score_std_second", "row"]
    scored = [row for row in table(tmp_path / "out").to_pylist() if row["status"] == "ok"]
    best = sorted(scored, key=lambda row: (-row["score_first"], row["row"]))[:3]
    assert sorted(int(row["row"]) for row in chosen) == sorted(row["row"] for row in best)


def test_report_is_about_the_score_that_is_named(cli, tmp_path, collection, two):
    assert score(cli, collection, "out", *two).returncode == 0
    assert "choose one with --score score_first" in cli("report", "out").stderr
    for name in ("first", "second"):
        done = cli("report", "out", "--score", f"score_{name}", "--out", f"{name}.html", "--images", "2")
        assert done.returncode == 0, done.stderr
        page = (tmp_path / f"{name}.html").read_text()
        assert f"WHERE score_{name} " in page
        assert f"--score score_{name} --min-score=" in page
    assert score(cli, collection, "alone", two[0]).returncode == 0
    done = cli("report", "alone", "--compare", "out", "--out", "compared.html")
    assert "out: has 2 scores" in done.stderr
    done = cli("report", "out", "--score", "score_first", "--compare", "alone", "--out", "compared.html")
    assert done.returncode == 0, done.stderr
