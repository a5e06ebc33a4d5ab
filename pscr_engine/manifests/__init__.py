"""Manifests: the lists of images to score. One module per kind."""

from .base import Manifest, ManifestOptions
from .open import open_manifest

__all__ = ["Manifest", "ManifestOptions", "open_manifest"]
