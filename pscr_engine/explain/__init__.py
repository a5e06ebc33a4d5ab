"""Explanations of an image's score: what each patch scores by itself, and which exemplars are nearest."""

from .explanation import Explanation
from .findings import NearExemplar, PatchScore

__all__ = ["Explanation", "NearExemplar", "PatchScore"]
