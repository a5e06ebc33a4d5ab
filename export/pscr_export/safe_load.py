"""Reads files of torch.save without executing anything in them, and says what a file is that can't be read so.

PyTorch's reader with `weights_only=True` refuses every class and function that is not on its list. Here NumPy's
numbers are added to it: by stand-ins that make Python numbers of them, so that no code of NumPy's own pickling runs.
"""

from __future__ import annotations

import codecs
import errno
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pscr_engine.errors import CheckpointError, wrong_usage

_HEAD = 1024
_NUMBERS = {
    np.dtype(code).str[1:]: np.dtype(code)
    for code in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
}
_BFLOAT16 = "bfloat16"
_ADVICE = "save it again with tensors, numbers and text only"


def load_safely(path: Path) -> Any:
    """Load what torch.save wrote, without executing anything in it.

    Args:
        path: the file.

    Returns:
        The content: tensors on the CPU, plain Python values; NumPy's numbers become Python's.

    Raises:
        CheckpointError: no file, another kind of file, a damaged one, or one with an object that is not allowed.
    """
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "no such file"
        raise wrong_usage(CheckpointError(f"{path}: {what}; name a checkpoint"))
    if kind := unusable_kind(path):
        raise CheckpointError(f"{path}: {kind}")
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is said in one line
            return torch.load(path, map_location="cpu", weights_only=True)
    except _NumpyError as error:
        raise CheckpointError(f"{path}: holds {error}, which is not allowed; {_ADVICE}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a seek beyond the end of a file that is cut
            raise CheckpointError(f"{path}: can't be read ({error.strerror or error})") from error
        raise CheckpointError(f"{path}: {_load_failure(path, str(error))}") from error


def unusable_kind(path: Path) -> str | None:
    """Say what a file is, and what to do, if its beginning shows that it holds no weights; else return None.

    Raises:
        CheckpointError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error})") from error
    if not head:
        return "is empty; copy or download it again"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "is a pointer of Git LFS, not the file itself; get that with `git lfs pull`"
    if re.match(rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)\b", head, re.I | re.S):
        return "is an HTML page, a login or an error perhaps, not a checkpoint; download the file itself"
    if _is_text(head):
        return "is a text file, not a checkpoint; name what torch.save wrote"
    return None


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\r\n\t\f" for letter in text)


class _NumpyError(Exception):
    """A NumPy type, or its value, is none of those that are made numbers."""


class _NumpyType:
    """Stands for `numpy.dtype` when a NumPy scalar is read: knows the type's code and byte order, and does nothing.

    Args:
        code: "f8" for example.
        *options: `align` and `copy`, as NumPy pickles them.
    """

    __slots__ = ("code", "order")

    def __init__(self, code: object, *options: object) -> None:
        if not isinstance(code, str) or (code not in _NUMBERS and code != _BFLOAT16):
            raise _NumpyError(f"a NumPy value of type {str(code)[:40]!r}")
        self.code = code
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        """Take the byte order of a type's pickled state; the rest is about types that are not allowed."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


def _numpy_scalar(kind: object, data: object = b"") -> bool | int | float | complex:
    """Make the number that a NumPy scalar's bytes are; stands for `numpy._core.multiarray.scalar`."""
    if not isinstance(kind, _NumpyType) or not isinstance(data, bytes):
        raise _NumpyError("a NumPy value that is no plain number")
    order: Literal["<", ">"] = ">" if kind.order == ">" else "<"
    if kind.code == _BFLOAT16:  # the upper half of a float32
        data = data + b"\0\0" if order == ">" else b"\0\0" + data
    number = (np.dtype(np.float32) if kind.code == _BFLOAT16 else _NUMBERS[kind.code]).newbyteorder(order)
    if len(data) != number.itemsize:
        raise _NumpyError(f"a NumPy {kind.code} of {len(data)} bytes")
    value: bool | int | float | complex = np.frombuffer(data, number)[0].item()
    return value


# By the names that pickles have for them; a checkpoint saved under NumPy 1 names `scalar` by its old module.
_ALLOWED: list[Any] = [
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_NumpyType, "numpy.dtype"),
    (_BFLOAT16, "ml_dtypes.bfloat16"),
]


def _load_failure(path: Path, message: str) -> str:
    """Say why PyTorch's reader refused a file."""
    words = " ".join(message.split())
    named = re.search(r"unsupported (?:global: )?GLOBAL ([\w.]+)", words, re.IGNORECASE) or re.search(
        r"(?:unrecognized function|but got) <(?:class|function|built-in \w+) '?([\w.]+)", words
    )
    if named:
        return f"holds {named[1]}, which is not allowed, since reading it could execute code; {_ADVICE}"
    if "to load DTensors" in words:
        return f"holds distributed tensors; {_ADVICE}, gathered to whole ones"
    if "TorchScript" in words:
        return "is a TorchScript archive, not a checkpoint; save its state dicts with torch.save"
    protocol = _pickle_protocol(path)
    if "Unsupported operand" in words and protocol not in (None, 2):
        return f"was pickled by protocol {protocol}; save it again with torch.save's default protocol, 2"
    return f"not a file that torch.save wrote, or a damaged one ({_first_sentence(words)})"


def _pickle_protocol(path: Path) -> int | None:
    """Return the protocol of a file's (first) pickle, or None if it doesn't say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(name) as file:
                    head = file.read(2)
        else:
            with path.open("rb") as file:
                head = file.read(2)
    except (OSError, StopIteration, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return None
    return head[1] if len(head) == 2 and head[0] == 0x80 else None


def _first_sentence(message: str) -> str:
    return re.split(r"(?<=[.!]) ", message)[0][:160]
