"""Whole commands on several pretended GPUs: the workers, the ledger and the path are real."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.images import encoded, pixels
from tests.helpers.tiny import make_bundle

from .commands import PretendHost

pytestmark = pytest.mark.medium

ROWS = 600


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return PretendHost(tmp_path_factory.mktemp("host"), gpus=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    make_bundle(folder / "model.pscr", precisions=("fp32", "fp16"))
    for index in range(20):
        kind = ("JPEG", "PNG")[index % 2]
        (folder / f"{index}.img").write_bytes(encoded(pixels(40 + index, 70, index), kind))
    (folder / "7.img").write_bytes(b"broken")
    (folder / "m.csv").write_text("path\n" + "".join(f"{row % 21}.img\n" for row in range(ROWS)))
    return folder


def score(host, place, out, *options, **environment):
    return host.run(
        "score", "--manifest", place / "m.csv", "--bundle", place / "model.pscr", "--out", place / out,
        "--chunk-rows", 20, "--batch-size", 8, *options, **environment,
    )  # fmt: skip


def rows(folder):
    return pa.concat_tables(pq.read_table(part) for part in sorted(folder.glob("part-*.parquet"))).to_pylist()


@pytest.fixture(scope="module")
def expected(host, place):
    outcome = score(host, place, "expected", "--devices", "cpu", "--precision", "fp16")
    assert outcome.returncode == 0, outcome.stderr
    return rows(place / "expected")


def same(found, expected):
    assert [row["row"] for row in found] == list(range(ROWS))
    for mine, other in zip(found, expected, strict=True):
        assert {**mine, "score": 0, "score_std": 0} == {**other, "score": 0, "score_std": 0}
        assert mine["score"] == pytest.approx(other["score"], abs=1e-5)
        assert mine["score_std"] == pytest.approx(other["score_std"], abs=1e-5)


@pytest.mark.parametrize("devices", ["auto", "all", "cuda:0", "cuda:1,cuda:0", "cuda:0,cuda:0", "cpu,cuda:1"])
def test_rows_are_the_same_whichever_gpus_score_them(host, place, expected, devices):
    out = devices.replace(":", "").replace(",", "-")
    outcome = score(host, place, out, "--devices", devices, "--precision", "fp16")
    assert outcome.returncode == 0, outcome.stderr
    same(rows(place / out), expected)


@pytest.mark.slow
@pytest.mark.parametrize("launches", [0, 3, 20, 45])
def test_a_gpu_that_drops_out_loses_no_rows(host, place, expected, launches):
    out = f"loss-{launches}"
    # The other GPU is slow, so that this one gets as far as its loss, however late its process starts.
    faults = {"PRETEND_LOSS": f"1:{launches}", "PRETEND_SLOW": "0:40" if launches else "0:0"}
    outcome = score(host, place, out, "--devices", "cuda:0,cuda:1", **faults)
    assert outcome.returncode == 0, outcome.stderr
    same(rows(place / out), expected)
    assert re.search(r"cuda:1 \(pretended GPU\) has dropped out: .*Xid", outcome.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["cuda:1", "cuda:1,cuda:1"])
def test_when_the_last_gpu_drops_out_the_run_can_be_resumed(host, place, expected, devices):
    out = devices.replace(":", "").replace(",", "-") + "-lost"
    outcome = score(host, place, out, "--devices", devices, PRETEND_LOSS="1:40")
    assert outcome.returncode == 1
    assert "has dropped out" in outcome.stderr.splitlines()[-1]
    done = len(list((place / out).glob("part-*.parquet")))
    assert 0 < done < ROWS / 20
    outcome = score(host, place, out, "--devices", "cuda:0")
    assert outcome.returncode == 0, outcome.stderr
    same(rows(place / out), expected)


def test_doctor_sees_them(host):
    abilities = json.loads(host.run("doctor", "--json").stdout)["abilities"]
    assert all(able for able, _ in abilities.values()), abilities


def test_a_gpu_that_is_not_there_is_one_line(host, place):
    outcome = score(host, place, "none", "--devices", "cuda:2")
    assert outcome.returncode == 2
    assert outcome.stderr == "error: --devices 'cuda:2': there is no cuda:2 here (cuda:0, cuda:1)\n"
