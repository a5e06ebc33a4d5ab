"""One HTML page about a run: the distribution of its scores, its best and worst images, its failures, its speed."""
