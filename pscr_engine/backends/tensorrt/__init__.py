"""TensorRT: plans are built by `pscr-engine compile`, kept in the bundle, and run here.

`library`, `plans` and `compiling` need no TensorRT; `logger`, `building` and `engine` import it. CUDA must be
initialised before any of TensorRT's objects is made: without a driver, they crash the process.
"""
