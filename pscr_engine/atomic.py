"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


def fsync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the content of `path` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is made durable and takes `path`'s place.

    If the body raises, `path` stays as it was and the temporary file is removed.
    """
    # Not the process's number, which another host that writes to the same folder may have as well.
    temporary = path.with_name(f".{path.name}.partial-{secrets.randbelow(10**12)}")
    try:
        yield temporary
        fsync_file(temporary)
        temporary.replace(path)
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def create_file(path: Path, data: bytes) -> bool:
    """Write a file, whole and durable, unless there is one: of several processes, one gets True."""
    if path.exists():
        return False
    temporary = path.with_name(f".{path.name}.partial-{secrets.randbelow(10**12)}")
    try:
        temporary.write_bytes(data)
        fsync_file(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            temporary.replace(path)
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def check_output_file(path: Path, kind: str, is_earlier: Callable[[Path], bool] | None = None) -> None:
    """Raise OutputError unless a command may write its result to `path`; asked before the work for it begins.

    Args:
        path: the file.
        kind: what it will hold, "report" for example.
        is_earlier: tells whether a file that is there is an earlier one of its kind, which may be replaced; None if
            any file may.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name the file of the {kind}")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"{path.parent}: no such folder; make it, or name a file elsewhere")
    if is_earlier is not None and path.exists() and not is_earlier(path):
        raise OutputError(f"{path}: is there already, and no earlier {kind}; name another file")


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder beside `path`; on success it takes `path`'s place, whole.

    A folder that is at `path` already is kept until the new one is complete. Leftovers of exports
    that were killed are cleared away.
    """
    path = path.resolve()  # of a symbolic link, the target is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                fsync_file(file)
        fsync_directory(temporary)
        old = path.with_name(f".{path.name}.replaced-{os.getpid()}")
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        fsync_directory(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(path: Path) -> None:
    for kind in ("partial", "replaced"):
        prefix = f".{path.name}.{kind}-"
        for leftover in path.parent.glob(prefix + "*"):
            pid = leftover.name[len(prefix) :]
            if not pid.isdigit() or int(pid) == os.getpid() or _is_alive(int(pid)):
                continue
            if kind == "replaced" and not path.exists():
                leftover.replace(path)  # killed between the two renames: put the old folder back
            else:
                shutil.rmtree(leftover, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
