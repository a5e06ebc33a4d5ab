import argparse
import io
import os
import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from pscr_export.safe_load import load_safely

from pscr_engine.errors import CheckpointError

SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]  # NumPy's pickles name it, its stubs do not
FORMATS = [{}, {"_use_new_zipfile_serialization": False}]


@pytest.mark.parametrize("options", FORMATS)
@pytest.mark.parametrize(
    "value",
    [
        np.bool_(True),
        np.bool_(False),
        *(kind(5) for kind in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)),
        np.int64(-(2**63)),
        np.float16(0.5),
        ml_dtypes.bfloat16(-1.5),
        np.float32(1e30),
        np.float64(0.1),
        np.complex64(1 + 2j),
        np.array([3], ">i4")[0],
        np.array([0.25], ">f2")[0],
    ],
)
def test_numbers_of_numpy_become_those_of_python(save, value, options):
    read = load_safely(save({"value": value, "again": value}, **options))
    assert type(read["value"]) in (bool, int, float, complex)
    assert read["value"] == read["again"] == value.item()


def test_a_scalar_saved_under_numpy_1_is_read(tmp_path):
    written = io.BytesIO()
    torch.save({"value": np.float64(0.5)}, written, _use_new_zipfile_serialization=False)
    old = written.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != written.getvalue()
    (tmp_path / "c.pt").write_bytes(old)
    assert load_safely(tmp_path / "c.pt") == {"value": 0.5}


@pytest.mark.parametrize("order", "<>")
def test_the_byte_order_is_that_of_the_pickle(save, order):
    class Halves:
        def __reduce__(self):
            kind = np.dtype("f4").newbyteorder(order)
            return SCALAR, (kind, np.array(1.5, kind).tobytes())

    assert load_safely(save([Halves()])) == [1.5]


class Calling:
    """Pickled as a call of something with arguments."""

    def __init__(self, called, *arguments):
        self.called, self.arguments = called, arguments

    def __reduce__(self):
        return self.called, self.arguments


@pytest.mark.parametrize("options", FORMATS)
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Path("a"), "pathlib.PosixPath"),
        (argparse.Namespace(lr=1), "argparse.Namespace"),
        (np.zeros(3), "numpy._core.multiarray._reconstruct"),
        (Calling(eval, "1"), "eval"),
        (Calling(os.getcwd), "posix.getcwd"),
        (Calling(np.load, "x.npy"), "numpy.load"),
        (np.str_("text"), "NumPy value of type 'U4'"),
        (np.datetime64(1, "s"), "NumPy value of type 'M8'"),
        (Calling(np.dtype, "O"), "NumPy value of type 'O'"),
        (Calling(np.dtype, [("a", "f8")]), "NumPy value of type"),
        (Calling(SCALAR, np.dtype("f8"), b"123"), "NumPy f8 of 3 bytes"),
        (Calling(SCALAR, "f8", b"12345678"), "NumPy value that is no plain number"),
        (Calling(SCALAR, np.dtype("f8"), "12345678"), "NumPy value that is no plain number"),
    ],
)
def test_what_is_not_allowed_is_named(save, value, named, options):
    path = save({"value": value}, **options)
    with pytest.raises(CheckpointError) as raised:
        load_safely(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: holds ")
    assert named in message
    assert "not allowed" in message
    assert "\n" not in message


def test_nothing_is_executed(save, tmp_path):
    for called in (os.mkdir, Path.mkdir, exec):
        argument = "open('owned', 'w')" if called is exec else str(tmp_path / "owned")
        with pytest.raises(CheckpointError, match="is not allowed"):
            load_safely(save([Calling(called, argument)]))
        assert not (tmp_path / "owned").exists()


def test_the_list_of_what_is_allowed_is_left_as_it_was(save):
    before = set(torch.serialization.get_safe_globals())
    load_safely(save([np.float64(1)]))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 46830571\n",
            "is a pointer of Git LFS, not the file itself; get that with `git lfs pull`",
        ),
        (b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>", "is an HTML page"),
        (b"<html lang='en'>", "is an HTML page"),
        (b"\xef\xbb\xbf<!-- saved --> <HTML>", "is an HTML page"),
        (b"epoch,loss\n1,2\n", "is a text file"),
        (b"vwxyz", "is a text file"),
        (b'{"error": "not found"}', "is a text file"),
        ("Bild für Bild, ".encode() * 200, "is a text file"),
        (("x" * 1023 + "ü").encode(), "is a text file"),
        (pickle.dumps({"a": 1}, 4), "was pickled by protocol 4"),
        (os.urandom(16) + b"\0\xff" * 100, "not a file that torch.save wrote, or a damaged one"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, content, says):
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        load_safely(path)
    assert str(raised.value).startswith(f"{path}: {says}")
    assert "execute" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_archives_that_are_no_checkpoints(tmp_path, save):
    with zipfile.ZipFile(tmp_path / "zip", "w") as file:
        file.writestr("a", "b")
    (tmp_path / "cut").write_bytes(save({"a": torch.zeros(1000)}).read_bytes()[:-500])
    for name in ("zip", "cut"):
        with pytest.raises(CheckpointError, match=r"not a file that torch[.]save wrote"):
            load_safely(tmp_path / name)
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "script")
    with pytest.raises(CheckpointError, match="is a TorchScript archive"):
        load_safely(tmp_path / "script")
    with pytest.raises(CheckpointError, match="was pickled by protocol 4"):
        load_safely(save({"a": 1}, pickle_protocol=4))
