"""Give the GPU path the processor's decoder and provider in place of the GPU's; all else stays as it is.

Imported by name, or, with this folder on PYTHONPATH, as `sitecustomize` by every process of a command.
"""

from __future__ import annotations


def install() -> None:
    """Put the replacements in, for this process."""
    from pscr_engine.backends import onnxruntime_cuda
    from pscr_engine.cuda import backend
    from pscr_engine.cuda.decoder import ImageDecoder

    def on_processor(index: int, threads: int) -> ImageDecoder:
        return ImageDecoder(None, threads)

    backend.ImageDecoder = on_processor  # type: ignore[assignment, attr-defined]  # in place of the class
    onnxruntime_cuda.Provider.__new__.__defaults__ = ("CPUExecutionProvider", "cpu")
