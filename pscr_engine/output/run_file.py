"""The file that says what a run is, under its name of today or that of earlier versions."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..errors import OutputError
from .folder import Folder

RUN_FILE = "_run.json"
"""Readers of Parquet folders pass over what begins with "_" or "."."""

OLD_RUN_FILE = "run.json"
RUN_FILES = (RUN_FILE, OLD_RUN_FILE)


def read_run_file(where: object, read: Callable[[str], bytes]) -> bytes:
    """Read what a run is from its folder.

    Args:
        where: the folder, for messages.
        read: reads a file there by its name, or raises FileNotFoundError.

    Raises:
        FileNotFoundError: there is no such file.
        OutputError: there is one under each name, and they differ.
    """
    for _ in range(2):  # another shard may rename it meanwhile
        found = [content for name in RUN_FILES if (content := _read_if_there(read, name)) is not None]
        if len(found) == 2 and found[0] != found[1]:
            raise OutputError(
                f"{where}: {RUN_FILE} and {OLD_RUN_FILE} are both there and differ; take away the one that is not of "
                "the run whose parts are there"
            )
        if found:
            return found[0]
    raise FileNotFoundError(2, "no such file", RUN_FILE)


def has_run_file(names: Collection[str]) -> bool:
    """Tell whether a folder with files of these names is a run's."""
    return any(name in names for name in RUN_FILES)


def rename_old_run_file(folder: Folder) -> None:
    """Give an earlier version's file its name of today. Several processes may do so at once."""
    content = _read_if_there(folder.read, OLD_RUN_FILE)
    if content is not None:
        folder.create(RUN_FILE, content)
        folder.remove([OLD_RUN_FILE])


def _read_if_there(read: Callable[[str], bytes], name: str) -> bytes | None:
    try:
        return read(name)
    except FileNotFoundError:
        return None
