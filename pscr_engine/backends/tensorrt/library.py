"""Load a TensorRT that is installed: NVIDIA's full one, or TensorRT for RTX, which also compiles without a GPU.

A process uses one of the two, since their bindings register the same classes, and keeps the one that it has loaded.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ...errors import BackendError, MissingDependencyError, one_line


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two TensorRT libraries.

    Args:
        name: as in `--backend`, and of the extra that installs it.
        title: in messages.
        modules: names of its bindings; the first that is installed is imported.
        oldest: version that this code is for, inclusive.
        below: version that this code is not for any more.
    """

    name: str
    title: str
    modules: tuple[str, ...]
    oldest: tuple[int, ...]
    below: tuple[int, ...]

    @property
    def installed(self) -> bool:
        """Tell whether its bindings are installed; they may still fail to load."""
        return any(find_spec(name) is not None for name in self.modules)


FULL = Flavour("tensorrt", "TensorRT", ("tensorrt",), (10, 13), (12,))
RTX = Flavour("tensorrt-rtx", "TensorRT for RTX", ("tensorrt_rtx", "tensorrt_rtx_bindings"), (1, 4), (2,))
FLAVOURS = {flavour.name: flavour for flavour in (FULL, RTX)}

_lock = threading.Lock()
_loaded: tuple[Flavour, ModuleType] | None = None


def require_tensorrt(flavour: Flavour) -> str:
    """Load a TensorRT into this process, and return its version.

    Raises:
        MissingDependencyError: it is not installed.
        BackendError: its libraries don't load, it is of a version that this code is not for, or this process has
            loaded the other one.
    """
    global _loaded
    with _lock:
        if _loaded is None:
            module = _import(flavour)
            version = str(module.__version__)
            numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
            if not flavour.oldest <= numbers < flavour.below:
                oldest, below = (".".join(map(str, numbers)) for numbers in (flavour.oldest, flavour.below))
                raise BackendError(f"{flavour.title} {version}: pscr-engine needs {oldest} or later, below {below}")
            _loaded = flavour, module
        loaded, module = _loaded
    if loaded is not flavour:
        raise BackendError(
            f"this process has loaded {loaded.title}, and can't load {flavour.title} beside it: use another process"
        )
    return str(module.__version__)


def loaded_tensorrt() -> ModuleType:
    """Return the bindings that `require_tensorrt` has loaded."""
    assert _loaded is not None, "require_tensorrt comes first"
    return _loaded[1]


def _import(flavour: Flavour) -> ModuleType:
    if not flavour.installed:
        raise MissingDependencyError(flavour.modules[0], f"the backend {flavour.name!r}", flavour.name)
    name = next(name for name in flavour.modules if find_spec(name) is not None)
    try:
        return import_module(name)
    except Exception as error:
        raise BackendError(
            f"{flavour.title} is installed, but its libraries don't load ({one_line(error, 120)}): install it again"
        ) from error
