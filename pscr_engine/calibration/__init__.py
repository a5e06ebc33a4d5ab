"""Calibration: what a bundle must know so that images can be scored by some of their patches."""

from .calibrate import CALIBRATED, calibrate, with_calibration

__all__ = ["CALIBRATED", "calibrate", "with_calibration"]
