"""One reading of the trials of repeated images: noise ceiling by the authors' rule, and correlation of showings.

Trials are read whole, as they lie, but only some voxels are kept: those of a region and of three slices. So memory does
not grow with the store, and 30,000 trials of 83 x 104 x 81 voxels take little more than the time of decoding them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nsd_zarr.conversion.events import Listener, RunStarted, TrialsDone
from nsd_zarr.nsd import SHOWINGS
from nsd_zarr.read.accessor import NsdAccessor
from nsd_zarr.read.derive import get_betas, get_column
from nsd_zarr.read.volume import AXES
from nsd_zarr.report.numbers import Reliability, find_quantiles
from nsd_zarr.science.ceiling import NoiseVariance, make_ncsnr
from nsd_zarr.science.repeats import find_repeats

MAX_VOXELS = 40_000
"""Looked at: nsdgeneral has up to 17,907, three slices of subject 1 have 24,000."""
BLOCK_BYTES = 16 * 2**20
"""Of z-scores in memory at a time."""


@dataclass(frozen=True, slots=True)
class Showings:
    """What was computed, voxel by voxel."""

    numbers: Reliability
    """Told of it."""
    ncsnr: xr.DataArray
    """Computed from these trials, (voxel,), with the places of the voxels."""
    authors: np.ndarray | None
    """The dataset's own, (voxel,); None where the store has none."""
    correlation: np.ndarray
    """Between the first and the second showing over images, (voxel,)."""
    in_region: np.ndarray
    """Which of the voxels are of the region, bool, (voxel,)."""


class ShowingCorrelation:
    """Adds up pairs of showings, then gives their correlation over images. Memory: 48 bytes a voxel."""

    def __init__(self, voxels: int) -> None:
        self._sums = np.zeros((6, voxels))

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add images: z-scores of both showings, (image, voxel). NaN, a showing without data, does not count."""
        known = ~(np.isnan(first) | np.isnan(second))
        one, two = (np.where(known, each, 0).astype(np.float64) for each in (first, second))
        parts = (known, one, two, one * one, two * two, one * two)
        for place, part in enumerate(parts):
            self._sums[place] += part.sum(axis=0)

    def finish(self) -> np.ndarray:
        """Pearson's r of each voxel; NaN where nothing varies."""
        count, one, two, ones, twos, both = self._sums
        with np.errstate(invalid="ignore", divide="ignore"):
            r: np.ndarray = (both - one * two / count) / np.sqrt(
                (ones - one * one / count) * (twos - two * two / count)
            )
        return r


def choose_voxels(region: np.ndarray, brain: np.ndarray, places: dict[str, int] | None) -> np.ndarray:
    """Voxels to look at, bool, as *brain*: the region and, at *places*, three slices; MAX_VOXELS at most."""
    chosen = region.copy()
    for axis, place in (places or {}).items():
        cut = tuple(place if each == axis else slice(None) for each in AXES)
        chosen[cut] |= brain[cut]
    flat = np.flatnonzero(chosen)
    if len(flat) > MAX_VOXELS:  # of a large grid, evenly
        chosen = np.zeros_like(chosen)
        chosen.reshape(-1)[flat[np.linspace(0, len(flat) - 1, MAX_VOXELS).astype(int)]] = True
    return chosen


def measure_showings(
    dataset: xr.Dataset, name: str, region: np.ndarray, chosen: np.ndarray, listen: Listener
) -> Showings | None:
    """Read the trials of images with three showings, once. None where there is no such image.

    *name*, *region*: which voxels the medians are of; *chosen*: the voxels that are looked at. Raises StoreError where
    nobody knows which images were shown.
    """
    images = find_repeats(get_column(dataset, "nsd_id")).of(SHOWINGS)
    if not len(images):
        return None
    voxels = NsdAccessor(dataset).roi(mask=chosen)
    betas = get_betas(NsdAccessor(voxels).zscore("session", ddof=1))
    variance, correlation = NoiseVariance((betas.sizes["voxel"],)), ShowingCorrelation(betas.sizes["voxel"])
    step = max(1, BLOCK_BYTES // (SHOWINGS * betas.sizes["voxel"] * betas.dtype.itemsize))
    # In the order of their first showing: neighbours lie in few shards.
    listen(RunStarted(0, images.size, int(np.prod(chosen.shape)) * 2, 0, step="reading repeats"))
    for first in range(0, len(images), step):
        block = images[first : first + step]
        values = betas.isel(trial=block.reshape(-1)).values.reshape(len(block), SHOWINGS, -1)
        for repeats in values:
            variance.add(repeats)
        correlation.add(values[:, 0], values[:, 1])
        listen(TrialsDone(block.size))
    places = {axis: voxels[axis] for axis in AXES if axis in voxels.coords}
    ncsnr = xr.DataArray(make_ncsnr(variance.finish()), places, ("voxel",), "ncsnr", {"long_name": "ncsnr, recomputed"})
    authors = voxels["ncsnr"].values if "ncsnr" in voxels.variables else None
    inside = region[chosen]
    numbers = _tell(len(images), name, ncsnr.values, authors, correlation.finish(), inside)
    return Showings(numbers, ncsnr, authors, correlation.finish(), inside)


def _tell(
    images: int, name: str, ncsnr: np.ndarray, authors: np.ndarray | None, correlation: np.ndarray, inside: np.ndarray
) -> Reliability:
    known = np.full(ncsnr.shape, np.nan) if authors is None else authors
    both = np.isfinite(ncsnr) & np.isfinite(known)
    is_known = np.count_nonzero(both) > 1
    with np.errstate(invalid="ignore"):
        expected = np.square(ncsnr[inside]) / (np.square(ncsnr[inside]) + 1)
    return Reliability(
        images=images,
        voxels=len(ncsnr),
        region=name,
        ncsnr_median=_median(ncsnr[inside]),
        ncsnr_median_of_authors=None if authors is None else _median(known[inside]),
        correlation_with_authors=float(np.corrcoef(ncsnr[both], known[both])[0, 1]) if is_known else None,
        largest_difference=float(np.abs(ncsnr[both] - known[both]).max()) if is_known else None,
        showing_correlation=find_quantiles(correlation[inside]) or (),
        showing_correlation_expected=_median(expected),
    )


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
