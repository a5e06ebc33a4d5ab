"""Where an image's score comes from: its patches, one by one, and the exemplars that it is most like."""

from .explanation import Explanation
from .findings import NearExemplar, PatchScore

__all__ = ["Explanation", "NearExemplar", "PatchScore"]
