"""The z-score of a voxel: over the trials of one scan session, or over some of them.

A voxel without data in a session (nsd_zarr.science.missing) has z-score NaN in all its trials. One that has data, but
does not vary among the trials that the statistics are taken from, has no scale: its z-score is 0.0. `ddof` is 0 unless
asked for, as in NumPy and scikit-learn; MATLAB's zscore and the authors' noise ceiling have 1, which makes every
z-score smaller by sqrt((n - 1) / n). Source: data manual, "Functional data (NSD)", for the unit; the authors'
calczscore.m for NaN; 0.0 is ours.
"""

from __future__ import annotations

import numpy as np

from nsd_zarr.science.missing import find_missing
from nsd_zarr.science.moments import Statistics


def make_factor(std: np.ndarray, missing: np.ndarray, missing_factor: float = np.nan) -> np.ndarray:
    """What deviations are multiplied with: 1 / std, 0 where std is 0, *missing_factor* where *missing*.

    The only place of this rule.

    >>> make_factor(np.array([2.0, 0.0, 4.0], np.float32), np.array([False, False, True]))
    array([0.5, 0. , nan], dtype=float32)
    """
    factor = np.zeros_like(std)
    np.divide(std.dtype.type(1), std, out=factor, where=std != 0)
    factor[missing] = missing_factor
    return factor


def zscore_into(values: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> None:
    """Z-score *values* in place: minus *mean*, times *factor* (see make_factor), which broadcast against it."""
    with np.errstate(invalid="ignore"):
        np.subtract(values, mean, out=values)
        np.multiply(values, factor, out=values)


def zscore(values: np.ndarray, statistics: Statistics, missing: np.ndarray | None = None) -> np.ndarray:
    """Z-scores of *values*, shape (trial, voxel) or any that the statistics broadcast to, in a new array.

    *missing*: voxels without data; None where the statistics are those of the whole session, which show it.

    >>> zscore(np.array([[1.0, 5.0], [2.0, 5.0]]), Statistics(np.array([1.5, 5.0]), np.array([0.5, 0.0])))
    array([[-1., nan],
           [ 1., nan]])
    """
    scored = np.array(values, np.result_type(values, statistics.mean))
    known = find_missing(statistics.std) if missing is None else missing
    zscore_into(scored, statistics.mean, make_factor(statistics.std, known))
    return scored
