"""Pack what a GPU host without a package registry needs, and what is run there first.

python -m benchmarks.gpu_kit OUT        (or: make gpu-kit)

OUT/part-1, part-2, ... are carried to the host one by one, or together; on the host:

python3 part-1/first_contact.py
"""
