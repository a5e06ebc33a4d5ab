"""Score the quality of AI-generated images with PSCR.

    from pscr_engine import Scorer

    scorer = Scorer.open("model.pscr")  # without a name: model.pscr if it is here, else the shipped model
    for image in scorer.score(["a.png", "b.jpg"]):
        print(image.score, image.status)

Nothing in this package imports PyTorch.
"""

import os

# ONNX Runtime 1.32 reports its use over the network unless it is told not to before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from ._version import __version__
from .records import Status
from .scorer import Scorer
from .scoring import ScoredImage

__all__ = ["ScoredImage", "Scorer", "Status", "__version__"]
