"""The CUDA kernels: their sources, their compiled form, and what compiles and loads them."""
