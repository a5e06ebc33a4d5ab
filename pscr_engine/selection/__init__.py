"""The choice of images to keep: the rule, its application to a run, and the table of the kept images."""
