"""Score the quality of AI-generated images with PSCR.

    from pscr_engine import Scorer

    scorer = Scorer.open("model.pscr")  # without a name: model.pscr if it is here, else the shipped model
    for image in scorer.score(["a.png", "b.jpg"]):
        print(image.score, image.status)

Nothing in this package imports PyTorch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# ONNX Runtime 1.32 reports its use over the network unless it is told not to before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from ._version import __version__
from .errors import PscrError

if TYPE_CHECKING:
    from .config import ScoreConfig
    from .records import Status
    from .scorer import Scorer
    from .scoring import ScoredImage

__all__ = ["PscrError", "ScoreConfig", "ScoredImage", "Scorer", "Status", "__version__"]

_WHERE = {"ScoreConfig": "config", "ScoredImage": "scoring", "Scorer": "scorer", "Status": "records"}


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for: NumPy and Arrow take longer to load than most commands last."""
    if name in _WHERE:
        value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
