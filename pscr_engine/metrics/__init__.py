"""Metrics of a run for Prometheus: a file that is written every few seconds, a port to scrape, or both."""

from .figures import Figures
from .meter import Meter
from .open import metered

__all__ = ["Figures", "Meter", "metered"]
