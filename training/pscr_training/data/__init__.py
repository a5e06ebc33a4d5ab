"""Labelled images (the databases, a user's tables, made-up ones), their splits, and patches for training."""
