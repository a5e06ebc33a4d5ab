"""Source: where the rows come from. One module per kind of manifest."""

from .base import Manifest, ManifestOptions
from .open import open_manifest

__all__ = ["Manifest", "ManifestOptions", "open_manifest"]
