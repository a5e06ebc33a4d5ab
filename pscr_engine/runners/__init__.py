"""Whole runs: chunks of a manifest are handed to workers, which score them and write the parts; here or on Ray."""
