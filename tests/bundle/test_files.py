import hashlib
import json
import os
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pscr_engine.bundle import Bundle, Parity
from pscr_engine.errors import BundleError

from ..helpers.tiny import make_bundle


def edit(bundle, change):
    path = bundle.path / "bundle.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_what_is_written_is_read(tiny):
    again = Bundle.open(tiny.path)
    assert again.info == tiny.info
    assert again.digest == tiny.digest
    assert np.array_equal(again.exemplars.hidden, tiny.exemplars.hidden)
    assert again.info.tensors()["inputs"]["patches"]["shape"] == ["B*9", 32, 32, 3]


def test_every_file_but_bundle_json_is_listed_and_readable_by_all(tiny):
    listed = json.loads((tiny.path / "bundle.json").read_text())["files"]
    files = {file.name: file for file in tiny.path.iterdir()}
    assert set(listed) | {"bundle.json"} == set(files)
    assert all(file.stat().st_mode & stat.S_IROTH for file in files.values())


@pytest.mark.parametrize("name", ["scorer.fp32.onnx", "exemplars.safetensors", "exemplars.parquet"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(tiny, name, damage):
    file = tiny.path / name
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(BundleError, match=name) as raised:
        Bundle.open(tiny.path)
    assert "export it again" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.update(format_version=2), "reads 1"),
        (lambda value: value.update(format="other"), "not a PSCR bundle"),
        (lambda value: value.pop("patch_size"), "'patch_size' is missing"),
        (lambda value: value.pop("files"), "no 'files'"),
        (lambda value: value.update(precisions={}), "no precisions"),
        (lambda value: value["files"].pop("scorer.fp32.onnx"), "not listed"),
        (lambda value: value.update(feature_size=9), "'tensors' disagrees"),
        (lambda value: value.update(patch_size=64), "'tensors' disagrees"),
        (lambda value: value.update(patch_size=0), "patches of 0 pixels"),
        (lambda value: value.update(patch_size=float("inf")), "malformed"),
        (lambda value: value["sampling"].update(fractions=[[0, 0], [1, 2], [1, 1]]), "malformed"),
        (lambda value: value["sampling"].update(name="rps", patches=18), "'tensors' disagrees"),
        (lambda value: value["sampling"].update(name="rps", seed=2**70), "must fit in 64 bits"),
        (lambda value: value["files"].update({"a\0b": {"bytes": 0, "sha256": ""}}), "is not the file"),
        (lambda value: value["files"].update({"../x": {}}), "outside the bundle"),
        (lambda value: value["sampling"].update(name="grid"), "unknown sampling"),
        (lambda value: value.update(label_range=[1]), "malformed"),
    ],
)
def test_a_wrong_bundle_json_is_refused_in_one_line(tiny, change, message):
    edit(tiny, change)
    with pytest.raises(BundleError, match=message) as raised:
        Bundle.open(tiny.path)
    assert "\n" not in str(raised.value)


def test_no_bundle_says_how_to_make_one(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(BundleError, match="pscr-engine export"):
            Bundle.open(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="not a bundle, which is a folder"):
        Bundle.open(tmp_path / "file")


def test_exemplars_of_another_size_are_refused(tiny):
    from safetensors.numpy import save

    content = save({"hidden": np.zeros((5, 9), "f4"), "labels": np.zeros(5, "f4"), "features": np.zeros((5, 8), "f4")})
    (tiny.path / "exemplars.safetensors").write_bytes(content)

    def same_digest(value):
        digest = hashlib.sha256(content).hexdigest()
        value["files"]["exemplars.safetensors"] = {"bytes": len(content), "sha256": digest}

    edit(tiny, same_digest)
    with pytest.raises(BundleError, match=r"hidden is float32 \[5, 9\], not float32 \[5, 8\]"):
        Bundle.open(tiny.path)


def test_a_pipe_in_a_bundle_is_not_waited_for(tiny):
    (tiny.path / "exemplars.parquet").unlink()
    os.mkfifo(tiny.path / "exemplars.parquet")
    with pytest.raises(BundleError, match=r"exemplars\.parquet is not the file"):
        Bundle.open(tiny.path)


def test_bundle_json_that_is_no_json(tiny):
    (tiny.path / "bundle.json").write_bytes(b"\xff\x00")
    with pytest.raises(BundleError, match="not a PSCR bundle"):
        Bundle.open(tiny.path)


def test_a_precision_that_is_not_there_names_those_that_are(tmp_path):
    bundle = make_bundle(tmp_path / "b", precisions=("fp32", "fp16"))
    with pytest.raises(BundleError, match="only fp32, fp16"):
        bundle.graph_path("int8")


@pytest.mark.parametrize(
    ("difference", "srcc", "passed"),
    [(0.01, 1.0, True), (0.03, 1.0, False), (0.01, 0.9, False), (0.01, None, True)],
)
def test_parity_needs_both_difference_and_rank(difference, srcc, passed):
    parity = Parity(10, difference, 0.0, srcc, tolerance=0.02, min_srcc=0.999)
    assert parity.passed is passed
    assert Parity.from_json(parity.as_json()) == parity


def test_the_exemplar_table_is_that_of_the_cache(tiny):
    assert tiny.exemplar_files() == [("x", "0" * 64)] * 5
    table = tiny.path / "exemplars.parquet"
    for wrong in ({"path": ["x"] * 4, "sha256": ["0"] * 4}, {"path": ["x"] * 5}):
        pq.write_table(pa.table(wrong), table)
        with pytest.raises(BundleError, match=r"exemplars\.parquet.*export the bundle again"):
            tiny.exemplar_files()
    table.unlink()
    with pytest.raises(BundleError, match=r"exemplars\.parquet.*export the bundle again"):
        tiny.exemplar_files()
