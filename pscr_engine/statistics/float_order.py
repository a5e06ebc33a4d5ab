"""float32 values as integers in the same order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGN = np.uint32(2**31)


def keys_of(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Integers that compare as the values do. No NaN, please.

    The bits of a positive float, read as an integer, grow with it; those of a negative one fall. So the
    sign bit is set for the former, and all bits are flipped for the latter. -0 counts as 0.
    """
    bits = (values + np.float32(0)).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def values_of(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    """What `keys_of` was given."""
    keys = np.asarray(keys, np.uint32)
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float32)


def shortest(value: np.float32) -> str:
    """The shortest decimal that is this float32 again, without an exponent: 3.4182, not 3.4182000160217285."""
    return np.format_float_positional(value, unique=True, trim="-")
