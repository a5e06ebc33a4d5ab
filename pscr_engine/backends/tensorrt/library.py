"""Is TensorRT installed, and one that this code is for?"""

from __future__ import annotations

from importlib import import_module

from ...errors import BackendError, MissingDependencyError, one_line

_OLDEST, _BELOW = (10, 13), (12,)


def require_tensorrt() -> str:
    """TensorRT's version.

    Raises:
        MissingDependencyError: it is not installed.
        BackendError: its libraries don't load, or it is of a version that this code is not for.
    """
    try:
        version = str(import_module("tensorrt").__version__)
    except ModuleNotFoundError as error:
        raise MissingDependencyError("tensorrt", "the backend 'tensorrt'", "tensorrt") from error
    except Exception as error:
        raise BackendError(
            f"TensorRT is installed, but its libraries don't load ({one_line(error, 120)}): install it again"
        ) from error
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not _OLDEST <= numbers < _BELOW:
        raise BackendError(f"TensorRT {version}: pscr-engine needs 10.13 or later, below 12")
    return version
