"""The noise ceiling of each region."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

from nsd_zarr.nsd import ATLASES, SHOWINGS
from nsd_zarr.read.region import read_atlas
from nsd_zarr.read.roi import BRAINMASK, Region
from nsd_zarr.report.numbers import RegionNumbers, find_quantiles
from nsd_zarr.science.ceiling import make_noise_ceiling

DEFAULT_REGION = "nsdgeneral"
FIRST = (DEFAULT_REGION, "prf-visualrois", "streams", "floc-faces", "floc-bodies", "floc-places", "floc-words")
"""Sets that come first, in this order."""


def find_region(dataset: xr.Dataset, brain: np.ndarray) -> tuple[str, np.ndarray]:
    """Name and voxels of the region that everything is told of: nsdgeneral, or else the brain."""
    atlas = read_atlas(dataset)
    if DEFAULT_REGION in atlas.labels:
        mask = atlas.find_mask([DEFAULT_REGION])
        if mask.any():
            return DEFAULT_REGION, mask
    return "the brain" if BRAINMASK in dataset.variables else "all voxels", brain


def gather_regions(dataset: xr.Dataset) -> tuple[tuple[RegionNumbers, ...], dict[str, np.ndarray]]:
    """Each label of the subject's own sets, and its noise ceilings by "SET LABEL", percent. Empty without `ncsnr`."""
    if "ncsnr" not in dataset.variables:
        return (), {}
    ceiling = make_noise_ceiling(dataset["ncsnr"].values.astype(np.float32), SHOWINGS)
    values = dict(_list_values(dataset, ceiling))
    numbers = [
        RegionNumbers(roi, label, int(np.isfinite(each).sum()), quantiles)
        for (roi, label), each in values.items()
        if (quantiles := find_quantiles(each)) is not None
    ]
    return tuple(numbers), {roi if roi == label else f"{roi} {label}": each for (roi, label), each in values.items()}


def _list_values(dataset: xr.Dataset, ceiling: np.ndarray) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    atlas = read_atlas(dataset)
    known = [roi for roi in atlas.labels if roi not in {*ATLASES, BRAINMASK}]
    for roi in sorted(known, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        codes = atlas.read_codes(Region(roi, None, None))
        for label, number in atlas.labels[roi].items():
            if (codes == number).any():
                yield (roi, label), ceiling[codes == number]
