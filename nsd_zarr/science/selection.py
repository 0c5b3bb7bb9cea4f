"""Which trials are meant: booleans or integers."""

from __future__ import annotations

from typing import Any

import numpy as np


def select_trials(trials: Any, count: int) -> np.ndarray:
    """Trial numbers, int64, from booleans over all *count* trials or from integers. Raises IndexError, TypeError."""
    wanted = np.asarray(trials)
    if wanted.dtype == bool:
        if wanted.shape != (count,):
            raise IndexError(f"a selection of shape {wanted.shape}, expected one boolean for each of {count} trials")
        return np.flatnonzero(wanted)
    if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise TypeError(f"trials are booleans or integers in one dimension, not {wanted.dtype} of shape {wanted.shape}")
    numbers = wanted.astype(np.int64)
    numbers[numbers < 0] += count
    if ((numbers < 0) | (numbers >= count)).any():
        raise IndexError(f"trials {numbers.min()} to {numbers.max()} are not all within the store's {count} trials")
    return numbers
