"""Score the quality of AI-generated images with PSCR.

    from pscr_engine import Scorer

    scorer = Scorer.open("model.pscr")
    for image in scorer.score(["a.png", "b.jpg"]):
        print(image.score, image.status)

Nothing in this package imports PyTorch.
"""

from ._version import __version__
from .records import Status
from .scorer import ScoredImage, Scorer

__all__ = ["ScoredImage", "Scorer", "Status", "__version__"]
