"""Score the quality of AI-generated images with PSCR.

    from pscr_engine import Scorer

    scorer = Scorer.open("model.pscr")  # without a name: model.pscr if it is here, else the shipped model
    for image in scorer.score(["a.png", "b.jpg"]):
        print(image.score, image.status)

Nothing in this package imports PyTorch.
"""

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime 1.32 reports its use over the network unless it is told not to before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from ._version import __version__
from .errors import PscrError
from .records import Status
from .scorer import Scorer
from .scoring import ScoredImage

if TYPE_CHECKING:
    from .config import ScoreConfig

__all__ = ["PscrError", "ScoreConfig", "ScoredImage", "Scorer", "Status", "__version__"]


def __getattr__(name: str) -> Any:
    """Import ScoreConfig when it is asked for: it brings all kinds of manifests."""
    if name == "ScoreConfig":
        from .config import ScoreConfig

        return ScoreConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
