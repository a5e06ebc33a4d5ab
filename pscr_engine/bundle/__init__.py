"""Bundles: the folder that holds an exported PSCR model. The format is written down in `docs/bundle.md`."""

from .exemplars import EXEMPLAR_TENSORS, Exemplars
from .files import EXEMPLAR_TABLE, MANIFEST_NAME, Bundle, write_contents
from .info import PRECISIONS, BundleInfo, Graph, Parity

__all__ = [
    "EXEMPLAR_TABLE",
    "EXEMPLAR_TENSORS",
    "MANIFEST_NAME",
    "PRECISIONS",
    "Bundle",
    "BundleInfo",
    "Exemplars",
    "Graph",
    "Parity",
    "write_contents",
]
