"""The noise ceiling: how much of a voxel's variance a perfect model of the image could explain.

Source: Allen et al. 2022, Methods, "Noise ceiling estimation"; data manual, "Functional data (NSD)"; and the authors'
export_noiseceiling.m.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nsd_zarr.errors import ConfigError
from nsd_zarr.nsd import SHOWINGS

TILE_VOXELS = 8192
"""Voxels worked on at a time, so that three repeats in float64 stay in cache."""


class NoiseVariance:
    """Adds up images one by one, then gives the noise variance of each voxel. Memory: 12 bytes a voxel.

    The noise variance is the variance (ddof 1) over the three repeats of an image, averaged over images. An image of
    which a voxel lacks a repeat (NaN) does not count for that voxel. Source: the authors' export_noiseceiling.m, which
    takes a nanmean over images.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.images = 0
        self._counts: np.ndarray = np.zeros(shape, np.int32)
        self._sum = np.zeros(shape)

    def add(self, repeats: np.ndarray) -> None:
        """Add one image: session z-scores of its repeats, float, shape (repeat, ...)."""
        self.images += 1
        total, counts, flat = self._sum.reshape(-1), self._counts.reshape(-1), repeats.reshape(len(repeats), -1)
        with np.errstate(invalid="ignore"):
            for first in range(0, len(total), TILE_VOXELS):
                place = slice(first, first + TILE_VOXELS)
                tile = flat[:, place].astype(np.float64)
                tile -= tile.mean(axis=0)
                variance = np.square(tile, out=tile).sum(axis=0) / (len(tile) - 1)
                known = ~np.isnan(variance)
                np.add(total[place], variance, out=total[place], where=known)
                counts[place] += known

    def merge(self, other: NoiseVariance) -> None:
        """Add what *other* added up."""
        self.images += other.images
        self._counts += other._counts
        self._sum += other._sum

    def finish(self) -> np.ndarray:
        """Noise variance in squared z-scores, float64; NaN where no image counts. Raises ConfigError without any."""
        if not self.images:
            raise ConfigError(
                f"no image among these trials was shown {SHOWINGS} times",
                hint="Take trials of more sessions.",
                expected="at least 1",
                found=0,
            )
        with np.errstate(invalid="ignore"):
            mean: np.ndarray = self._sum / self._counts
        return mean


def make_ncsnr(noise_variance: np.ndarray) -> np.ndarray:
    """Noise-ceiling signal-to-noise ratio from the noise variance v² of z-scores: sqrt(max(0, 1 - v²)) / v, float32.

    NaN where v² is 0 or NaN: a voxel without any variance has no ceiling.

    >>> make_ncsnr(np.array([0.5, 1.2, 0.0]))
    array([ 1.,  0., nan], dtype=float32)
    """
    variance = np.where(noise_variance > 0, noise_variance, np.nan)
    ncsnr: np.ndarray = (np.sqrt(np.maximum(0, 1 - variance)) / np.sqrt(variance)).astype(np.float32)
    return ncsnr


def make_noise_ceiling(ncsnr: np.ndarray, trials_averaged: Any) -> np.ndarray:
    """Noise ceiling in percent of explainable variance: 100 ncsnr² / (ncsnr² + 1/n), of the shape and dtype of *ncsnr*.

    *trials_averaged*: n, how many trials each response is the mean of: one number; or one for each image, where some
    were shown less often: then 1/n is its mean over images, the authors' (A/3 + B/2 + C) / (A + B + C). NaN stays NaN.
    Raises ConfigError unless every n is positive.

    >>> make_noise_ceiling(np.array([1.0, 0.0]), 3)
    array([75.,  0.])
    >>> make_noise_ceiling(np.array([1.0]), [3, 3, 2, 1]).round(2)
    array([64.86])
    """
    counts = np.asarray(trials_averaged, np.float64)
    if not counts.size or not (counts > 0).all():
        raise ConfigError(f"averages over {trials_averaged!r} trials, expected positive numbers", hint="Give n=3.")
    return scale_ceiling(ncsnr, np.mean(1 / counts))


def scale_ceiling(ncsnr: np.ndarray, inverse: Any) -> np.ndarray:
    """Noise ceiling in percent, as make_noise_ceiling; *inverse*: mean of 1/n, one number or one a voxel."""
    power = np.square(ncsnr)
    ceiling: np.ndarray = (100 * power / (power + np.asarray(inverse).astype(power.dtype))).astype(ncsnr.dtype)
    return ceiling
