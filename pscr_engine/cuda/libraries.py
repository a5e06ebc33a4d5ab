"""NVIDIA's libraries from pip packages: found and loaded, so that nobody has to set LD_LIBRARY_PATH.

`pip install` puts them in `nvidia/*/lib` beside the other packages. The system's loader does not look there; but
it takes a library of the same name (soname) that the process has loaded already.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from ..host import MadeOnce

FOR_DECODING = ("cudart", "nvjpeg")
FOR_ONNXRUNTIME = (
    "cudart",
    "nvJitLink",
    "nvrtc",
    "cublasLt",
    "cublas",
    "curand",
    "cufft",
    "cudnn",
    "cudnn_graph",
    "cudnn_ops",
    "cudnn_cnn",
    "cudnn_adv",
    "cudnn_heuristic",
    "cudnn_engines_precompiled",
    "cudnn_engines_runtime_compiled",
)


def library_files(names: tuple[str, ...] = (*FOR_ONNXRUNTIME, "nvjpeg")) -> dict[str, Path]:
    """Return the file of each of these libraries that is installed, the first along Python's path.

    It looks into a few folders only: whole file systems would take minutes.
    """
    out: dict[str, Path] = {}
    for entry in sys.path:
        if not entry:
            continue
        for folder in sorted(Path(entry).glob("nvidia/*/lib")):
            for name in names:
                if name not in out and (files := sorted(folder.glob(f"lib{name}.so.*"))):
                    out[name] = files[0]
    return out


@MadeOnce
def load_libraries(names: tuple[str, ...]) -> dict[str, Path]:
    """Load libraries, once per process; what doesn't load is left to the system's loader.

    Returns:
        The files that were loaded, by name.
    """
    waiting, loaded = library_files(names), dict[str, Path]()
    while True:  # each may need some of the others
        done = {name: file for name, file in waiting.items() if _load(file)}
        loaded |= done
        waiting = {name: file for name, file in waiting.items() if name not in done}
        if not done or not waiting:
            return loaded


def _load(file: Path) -> bool:
    try:
        ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
