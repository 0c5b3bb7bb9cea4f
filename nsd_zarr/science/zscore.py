"""The z-score of a voxel: over the trials of one scan session, or over some of them.

A voxel that does not vary has no scale: its z-score is 0.0 for every trial. NaN stays NaN, and a NaN among the trials
that the statistics are taken from makes the whole voxel NaN in that session. `ddof` is 0, as in NumPy and scikit-learn;
MATLAB's zscore has 1, which makes every z-score smaller by sqrt((n - 1) / n). Source: data manual, "Functional data
(NSD)", for the unit; the rules are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and standard deviation of each voxel over some trials, in the unit of the values."""

    mean: np.ndarray
    """float32 (float64 for float64 values), shape (voxel,) or any other."""
    std: np.ndarray
    """Of the same shape and dtype; ddof 0."""


class Moments:
    """Adds up trials one by one, and then tells mean and standard deviation (ddof 0). Memory: two volumes.

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

    def finish(self, scale: float = 1) -> Statistics:
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
        return Statistics((mean / scale).astype(wide), (np.sqrt(variance) / scale).astype(wide))


def make_factor(std: np.ndarray) -> np.ndarray:
    """What deviations are multiplied with: 1 / std, 0 where std is 0, NaN where it is NaN. The only place of this rule.

    >>> make_factor(np.array([2.0, 0.0, np.nan], np.float32))
    array([0.5, 0. , nan], dtype=float32)
    """
    factor = np.zeros_like(std)
    np.divide(std.dtype.type(1), std, out=factor, where=std != 0)
    return factor


def zscore_into(values: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> None:
    """Z-score *values* in place: minus *mean*, times *factor* (see make_factor), which broadcast against it."""
    with np.errstate(invalid="ignore"):
        np.subtract(values, mean, out=values)
        np.multiply(values, factor, out=values)


def zscore(values: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Z-scores of *values*, shape (trial, voxel) or any that the statistics broadcast to, in a new array.

    >>> zscore(np.array([[1.0, 5.0], [2.0, 5.0]]), Statistics(np.array([1.5, 5.0]), np.array([0.5, 0.0])))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    scored = np.array(values, np.result_type(values, statistics.mean))
    zscore_into(scored, statistics.mean, make_factor(statistics.std))
    return scored


def compute_statistics(trials: np.ndarray, scale: float = 1) -> Statistics:
    """Mean and standard deviation (ddof 0) of *trials*, shape (trial, ...), divided by *scale*. See Moments."""
    moments = Moments(trials.shape[1:], trials.dtype)
    for values in trials:
        moments.add(values)
    return moments.finish(scale)
