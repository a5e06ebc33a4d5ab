"""Bundles: the folder that holds an exported PSCR model. The format is written down in `docs/bundle.md`."""

from .exemplars import EXEMPLAR_TENSORS, Exemplars
from .files import EXEMPLAR_TABLE, MANIFEST_NAME, Bundle, write_contents
from .info import PRECISIONS, BundleInfo, Graph, Parity
from .patch_scores import PATCH_SCORES, PatchScores

__all__ = [
    "EXEMPLAR_TABLE",
    "EXEMPLAR_TENSORS",
    "MANIFEST_NAME",
    "PATCH_SCORES",
    "PRECISIONS",
    "Bundle",
    "BundleInfo",
    "Exemplars",
    "Graph",
    "Parity",
    "PatchScores",
    "write_contents",
]
