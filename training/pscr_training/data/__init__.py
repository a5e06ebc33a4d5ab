"""Labelled images: the databases, tables of one's own, made-up ones; splits; patches for training."""
