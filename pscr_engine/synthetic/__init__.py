"""Made-up images with labels, for the demo, for tests and for measuring where no real images are at hand."""

from .folder import write_images
from .generate import DEGRADATIONS, SyntheticImage, generate, make_image

__all__ = ["DEGRADATIONS", "SyntheticImage", "generate", "make_image", "write_images"]
