"""TensorRT: plans are built by `pscr-engine compile`, kept in the bundle, and run here.

`logger`, `builder`, `engine` and `rtx` are imported once `library` has loaded a TensorRT; the other modules need none.
CUDA must be initialised before any of TensorRT's objects is made: without a driver, they crash the process.
"""
