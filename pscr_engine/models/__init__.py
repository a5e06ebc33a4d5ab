"""Models that come with pscr-engine, and the choice of the bundle that a command scores with.

A shipped model is three things in this folder:

- `NAME.pscr/`: its bundle (docs/bundle.md),
- `NAME.json`: facts about it, for programs: `pscr_engine.models.facts` says which,
- `NAME.md`: its model card, for people.

Wherever a command or the Python API takes a bundle, NAME stands for that bundle.
"""

from .choice import BundleChoice, choose_bundle
from .facts import Figures, Interval, ModelFacts
from .panel import GivenBundle, Panel, choose_bundles, one_or_panel
from .shipped import DEFAULT_MODEL, ShippedModel, find_model, shipped_models

__all__ = [
    "DEFAULT_MODEL",
    "BundleChoice",
    "Figures",
    "GivenBundle",
    "Interval",
    "ModelFacts",
    "Panel",
    "ShippedModel",
    "choose_bundle",
    "choose_bundles",
    "find_model",
    "one_or_panel",
    "shipped_models",
]
