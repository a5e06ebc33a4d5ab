"""The sections of `benchmarks.gpu_acceptance`, one module each. Each is run in a process of its own."""
