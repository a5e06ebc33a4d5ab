import json
import os
from dataclasses import replace

import pytest

from pscr_engine.backends.tensorrt.plans import PlanKey, PlanStore
from pscr_engine.bundle import Parity
from pscr_engine.errors import BackendError
from tests.helpers.shipped import ship
from tests.helpers.tiny import make_bundle

KEY = PlanKey("ab12", "fp16", "tensorrt", "10.13.3.9", "NVIDIA H200", "9.0", 64, 1024, 3)
GOOD = Parity(48, 1e-4, 1e-5, None, 2e-2, None)


@pytest.fixture
def store(tmp_path):
    return PlanStore(make_bundle(tmp_path / "m.pscr"))


def test_a_plan_is_found_again(store):
    assert store.find(KEY, exactly=True) == "there is none"
    path = store.write(KEY, b"plan", GOOD, 12.34)
    assert path.name.startswith("fp16-nvidia-h200-b64-")
    record, plan = store.find(KEY, exactly=True)
    assert (plan, record.key, record.parity, record.seconds) == (b"plan", KEY, GOOD, 12.3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"graph": "other"}, "it is of another export of the model"),
        ({"precision": "fp32"}, "it was built for precision fp16, this is fp32"),
        ({"tensorrt": "11.0"}, "it was built for TensorRT 10.13.3.9, this is 11.0"),
        ({"gpu": "NVIDIA L4"}, "it was built for GPU NVIDIA H200, this is NVIDIA L4"),
        ({"compute_capability": "8.9"}, "it was built for compute capability 9.0, this is 8.9"),
    ],
)
def test_a_stale_plan_is_not_used_and_it_is_said_why(store, change, reason):
    store.write(KEY, b"plan", GOOD, 1)
    for exactly in (True, False):
        assert store.find(replace(KEY, **change), exactly=exactly) == reason


def test_scoring_takes_any_plan_that_is_large_enough_compiling_the_very_one(store):
    store.write(KEY, b"plan 64", GOOD, 1)
    store.write(replace(KEY, batch_size=16), b"plan 16", GOOD, 1)
    assert store.find(replace(KEY, batch_size=8), exactly=False)[1] == b"plan 16"
    assert store.find(replace(KEY, batch_size=17), exactly=False)[1] == b"plan 64"
    assert store.find(replace(KEY, batch_size=65), exactly=False) == "none is for batches of 65"
    assert "batch size" in store.find(replace(KEY, batch_size=8), exactly=True)
    assert "optimization level 3, this is 5" in store.find(replace(KEY, optimization_level=5), exactly=True)


def test_only_what_is_on_record_is_loaded(store):
    path = store.write(KEY, b"plan", GOOD, 1)
    path.write_bytes(b"evil")
    assert "is not the plan that was built (SHA-256 differs)" in store.find(KEY, exactly=True)
    path.unlink()
    assert "No such file" in store.find(KEY, exactly=True)
    store.write(KEY, b"plan", replace(GOOD, max_abs_diff=1.0), 1)
    assert "failed its parity check" in store.find(KEY, exactly=True)
    record = path.with_suffix(".json")
    for broken in ("", "[]", "{}", "null", '{"key": 3}', json.dumps({**json.loads(record.read_text()), "parity": 1})):
        record.write_text(broken)
        assert store.find(KEY, exactly=True) == "there is none"
    (store.folder / "foreign.plan").write_bytes(b"never looked at")
    assert store.find(KEY, exactly=False) == "there is none"


RTX = replace(KEY, flavour="tensorrt-rtx", tensorrt="1.7.1.116", gpu="")


def test_a_plan_for_several_gpus_is_taken_where_its_targets_say_so(store):
    wanted = replace(RTX, compute_capability="8.9")
    named = replace(RTX, compute_capability="8.6,8.9")
    store.write(named, b"named", None, 1)
    assert store.find(wanted, exactly=False)[1] == b"named"
    assert store.find(replace(RTX, compute_capability="9.0"), exactly=False) == (
        "it was built for compute capability 8.6,8.9, this is 9.0"
    )
    store.write(replace(RTX, compute_capability="portable"), b"portable", None, 1)
    assert store.find(replace(RTX, compute_capability="9.0"), exactly=False)[1] == b"portable"
    assert store.find(wanted, exactly=False)[1] == b"named", "the one that names the GPU is preferred"
    assert store.find(named, exactly=True)[1] == b"named"
    record, _ = store.find(wanted, exactly=False)
    assert record.parity is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"flavour": "tensorrt", "tensorrt": "10.13.3.9", "gpu": "L4"}, "it was built by tensorrt-rtx"),
        ({"tensorrt": "1.8.0"}, "it was built for TensorRT for RTX 1.7.1.116, this is 1.8.0"),
        ({"graph": "other"}, "it is of another export of the model"),
    ],
)
def test_a_plan_of_tensorrt_for_rtx_that_does_not_fit_is_not_used(store, change, reason):
    store.write(replace(RTX, compute_capability="portable"), b"plan", None, 1)
    wanted = replace(RTX, compute_capability="8.9", **change)
    assert store.find(wanted, exactly=False) == reason


def test_which_tensorrt_has_plans(store):
    assert store.flavours() == []
    store.write(replace(RTX, compute_capability="portable"), b"plan", None, 1)
    assert [flavour.name for flavour in store.flavours()] == ["tensorrt-rtx"]
    store.write(KEY, b"plan", GOOD, 1)
    assert [flavour.name for flavour in store.flavours()] == ["tensorrt", "tensorrt-rtx"]


def test_a_plan_of_tensorrt_without_parity_on_record_is_none(store):
    store.write(KEY, b"plan", None, 1)
    assert store.find(KEY, exactly=True) == "there is none"


def test_a_disk_with_too_little_room_is_said_before_a_plan_is_built(store):
    with pytest.raises(BackendError, match=r"the disk has \d+ MB left, a plan may take 1000000000000; make room"):
        store.require_writable(10**18)


def test_a_record_under_another_name_is_not_a_record(store):
    path = store.write(KEY, b"plan", GOOD, 1)
    path.with_suffix(".json").rename(path.with_name("other.json"))
    assert store.find(KEY, exactly=True) == "there is none"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_bundle_that_cannot_be_written_is_one_line(store):
    store.folder.parent.chmod(0o500)
    with pytest.raises(BackendError, match="copy the bundle to a folder of yours"):
        store.write(KEY, b"plan", GOOD, 1)


def test_a_folder_that_cannot_be_written_is_said_before_a_plan_is_built(store, models_folder):
    store.require_writable()
    assert store.find(KEY, exactly=True) == "there is none"
    store.folder.rmdir()
    store.folder.touch()  # root may write to any folder, but not to a file
    with pytest.raises(
        BackendError, match=r"can't be written .*; copy the bundle to a folder of yours and name the copy"
    ):
        store.require_writable()
    shipped = PlanStore(ship(models_folder))
    shipped.folder.touch()
    with pytest.raises(BackendError, match=r"copy it first \(pscr-engine models agiqa3k-lite0 --copy model.pscr\) and"):
        shipped.require_writable()
