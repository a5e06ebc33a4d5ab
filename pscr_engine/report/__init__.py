"""One HTML page about a run: what its scores look like, which images are at the ends, what failed, how fast it was."""
