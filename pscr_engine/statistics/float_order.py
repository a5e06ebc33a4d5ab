"""The mapping of float32 values to integers in the same order, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGN = np.uint32(2**31)


def keys_of(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return integers that compare as the values do; no value may be NaN.

    The bits of a positive float, read as an integer, grow with it; those of a negative one fall. So the
    sign bit of a positive one is set, and all bits of a negative one are flipped. -0 counts as 0.
    """
    bits = (values + np.float32(0)).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def values_of(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return the values from which `keys_of` made these integers."""
    keys = np.asarray(keys, np.uint32)
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float32)


def shortest(value: np.float32) -> str:
    """Return the shortest decimal that reads as this float32, without an exponent: 3.4182, not 3.4182000160217285."""
    return np.format_float_positional(value, unique=True, trim="-")
