"""The z-score of a voxel: over the trials of one scan session, or over some of them.

A voxel without data in a session (nsd_zarr.science.missing) has z-score NaN in all its trials. One that has data, but
does not vary among the trials that the statistics are taken from, has no scale: its z-score is 0.0. `ddof` is 0 unless
asked for, as in NumPy and scikit-learn; MATLAB's zscore and the authors' noise ceiling have 1, which makes every
z-score smaller by sqrt((n - 1) / n). Source: data manual, "Functional data (NSD)", for the unit; the authors'
calczscore.m for NaN; 0.0 is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsd_zarr.science.missing import find_missing


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and standard deviation of each voxel over some trials, in the unit of the values."""

    mean: np.ndarray
    """float32 (float64 for float64 values), shape (voxel,) or any other."""
    std: np.ndarray
    """Of the same shape and dtype."""


class Moments:
    """Adds up trials one by one, then gives mean and standard deviation. Memory: two volumes.

    Counts (integers of up to two bytes) are added up exactly, so a constant voxel has std 0 to the last bit; everything
    else in float64 by Welford's updates, where a constant voxel has std 0 as well.

    >>> moments = Moments((2,), np.int16)
    >>> for trial in ([300, 7], [600, 7]):
    ...     moments.add(np.array(trial, np.int16))
    >>> moments.finish(scale=300)
    Statistics(mean=array([1.5       , 0.02333333], dtype=float32), std=array([0.5, 0. ], dtype=float32))
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.is_exact = self.dtype.kind in "iu" and self.dtype.itemsize <= 2
        self.count = 0
        # First and second moment: sums of counts and of their squares, or mean and sum of squared deviations.
        wide: Any = np.int64 if self.is_exact else np.float64
        self._first: np.ndarray = np.zeros(shape, wide)
        self._second: np.ndarray = np.zeros(shape, wide)

    def add(self, values: np.ndarray) -> None:
        """Add one trial, of the shape and dtype given before. Up to 46,000 trials of counts stay exact."""
        self.count += 1
        wide = values.astype(self._first.dtype)
        if self.is_exact:
            self._first += wide
            self._second += np.square(wide, out=wide)
            return
        with np.errstate(invalid="ignore"):  # an infinity among the values is a NaN here
            change = wide - self._first
            self._first += change / self.count
            self._second += change * (wide - self._first)

    def finish(self, scale: float = 1, ddof: int = 0) -> Statistics:
        """Statistics of what was added, divided by *scale* (300: counts to percent). Raises ValueError without any."""
        if not self.count:
            raise ValueError("statistics of no trial: expected at least one")
        if self.is_exact:
            mean = self._first / self.count
            # n * sum of squares - square of sum, in integers: below 2 ** 63 up to 46,000 trials.
            variance = (self.count * self._second - np.square(self._first)) / self.count**2
        else:
            mean, variance = self._first, self._second / self.count
        wide = np.float64 if self.dtype == np.float64 else np.float32
        return Statistics(
            (mean / scale).astype(wide), correct_std(np.sqrt(variance) / scale, self.count, ddof).astype(wide)
        )


def correct_std(std: Any, trials: int, ddof: int) -> Any:
    """A standard deviation of ddof 0 over so many *trials* as one of *ddof*; of a single trial it stays 0.

    >>> float(correct_std(1.0, 2, 1) ** 2)
    2.0000000000000004
    """
    return std if ddof == 0 else std * math.sqrt(trials / max(1, trials - ddof))


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

    *missing*: voxels without data; None where the statistics are those of the whole session, which tell it.

    >>> zscore(np.array([[1.0, 5.0], [2.0, 5.0]]), Statistics(np.array([1.5, 5.0]), np.array([0.5, 0.0])))
    array([[-1., nan],
           [ 1., nan]])
    """
    scored = np.array(values, np.result_type(values, statistics.mean))
    known = find_missing(statistics.std) if missing is None else missing
    zscore_into(scored, statistics.mean, make_factor(statistics.std, known))
    return scored


def compute_statistics(trials: np.ndarray, scale: float = 1, ddof: int = 0) -> Statistics:
    """Mean and standard deviation of *trials*, shape (trial, ...), divided by *scale*. See Moments."""
    moments = Moments(trials.shape[1:], trials.dtype)
    for values in trials:
        moments.add(values)
    return moments.finish(scale, ddof)
