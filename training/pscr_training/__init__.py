"""Trains and evaluates PSCR models on labelled images. This package needs PyTorch; scoring does not."""
