"""Where the path needs a GPU's decoder or provider, give it the processor's: everything else is as it is.

Imported by name, or, with this folder on PYTHONPATH, as `sitecustomize` by every process of a command.
"""

from __future__ import annotations


def install() -> None:
    from pscr_engine.backends import onnxruntime_cuda
    from pscr_engine.cuda import backend
    from pscr_engine.cuda.decoder import ImageDecoder

    backend.ImageDecoder = lambda index, threads: ImageDecoder(None, threads)
    onnxruntime_cuda.Provider.__new__.__defaults__ = ("CPUExecutionProvider", "cpu")
