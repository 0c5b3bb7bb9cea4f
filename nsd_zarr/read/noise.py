"""The noise-ceiling signal-to-noise ratio of a dataset, a few images at a time."""

from __future__ import annotations

import xarray as xr

from nsd_zarr.nsd import SHOWINGS
from nsd_zarr.read.derive import TRIAL, get_betas, get_column
from nsd_zarr.science.ceiling import NoiseVariance, make_ncsnr
from nsd_zarr.science.repeats import find_repeats

BLOCK_BYTES = 8 * 2**20
"""Of trials held at a time, one image at least; enough for several threads to share."""


def measure_ncsnr(scored: xr.Dataset) -> xr.DataArray:
    """The ncsnr of z-scored betas, over images with three showings among the trials of *scored*. See ds.nsd."""
    betas = get_betas(scored).transpose(TRIAL, ...)
    images = find_repeats(get_column(scored, "nsd_id")).of(SHOWINGS)
    volume = betas.isel({TRIAL: 0}, drop=True)
    variance = NoiseVariance(volume.shape)
    images_at_once = max(1, BLOCK_BYTES // max(1, SHOWINGS * volume.nbytes))
    for first in range(0, len(images), images_at_once):
        block = images[first : first + images_at_once]
        values = betas.isel({TRIAL: block.reshape(-1)}).values
        for repeats in values.reshape(len(block), SHOWINGS, *volume.shape):
            variance.add(repeats)
        del values, repeats  # before the next block is read
    attributes = {"long_name": "noise-ceiling signal-to-noise ratio", "units": "1", "images": variance.images}
    ncsnr = make_ncsnr(variance.finish())
    return xr.DataArray(ncsnr, volume.coords, volume.dims, "ncsnr", attributes)
