"""Pillow's settings of the whole process as a run needs them: its limits, and the silence of the libtiff inside it."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from PIL import Image, PngImagePlugin, _imaging

# Module and name of each limit → ours. Generators write megabytes of text (a workflow, its images included) into PNGs;
# Pillow allows a text or a colour profile 1 MiB, and all texts 64.
_TEXT_BYTES = 64 * 2**20
_LIMITS = {
    (Image, "MAX_IMAGE_PIXELS"): None,
    (PngImagePlugin, "MAX_TEXT_CHUNK"): _TEXT_BYTES,
    (PngImagePlugin, "MAX_TEXT_MEMORY"): _TEXT_BYTES,
}
_HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")

_lock = Lock()
_before: list[Any] = []
_runs = 0


@contextmanager
def pillow_for_a_run() -> Iterator[None]:
    """Let Pillow decode as a run wants it, while one or several go on: by our limits, and silently.

    There is no limit on pixels: images are checked against `DecodeOptions.max_pixels` once their header is read, before
    pixels take memory. A PNG's metadata may unpack to 64 MiB. What is wrong with an image is said in its row alone.
    """
    global _runs, _before
    with _lock:
        _runs += 1
        if _runs == 1:
            _before = [getattr(module, name) for module, name in _LIMITS]
            for (module, name), ours in _LIMITS.items():
                setattr(module, name, ours)
            _before += [set_handler(None) for set_handler in _libtiff()]
    try:
        yield
    finally:
        with _lock:
            _runs -= 1
            if not _runs:
                for (module, name), before in zip(_LIMITS, _before, strict=False):
                    setattr(module, name, before)
                for set_handler, before in zip(_libtiff(), _before[len(_LIMITS) :], strict=True):
                    set_handler(before)


@cache
def _libtiff() -> list[Any]:
    """Return libtiff's functions that set its handlers of messages and return the former ones; [] without libtiff."""
    # Pillow would print this at once where nobody has set up logging.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    # libtiff's own switch, found through Pillow's library: descriptor 2, with a crash's last words and the bar,
    # stays as it is. Only a libtiff that is linked in, and hidden, goes on talking.
    try:
        library = ctypes.CDLL(_imaging.__file__)
        found = [getattr(library, name) for name in _HANDLERS]
    except (AttributeError, OSError):
        return []
    for function in found:
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
    return found
