"""What is measured, how, and against whom. Run each as `python -m benchmarks.NAME`."""
