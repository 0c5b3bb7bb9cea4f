"""The noise-ceiling signal-to-noise ratio of a dataset, a few images at a time; and what means over repeats lack."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.nsd import SHOWINGS
from nsd_zarr.read.derive import IMAGE, TRIAL, get_betas, get_column
from nsd_zarr.read.missing import SESSION_NUMBER, SHOWING_SESSION, find_missing_variable, find_positions, get_missing
from nsd_zarr.read.stored import check_origin
from nsd_zarr.science.ceiling import NoiseVariance, make_ncsnr, make_noise_ceiling, scale_ceiling
from nsd_zarr.science.repeats import find_repeats

BLOCK_BYTES = 8 * 2**20
"""Of trials held at a time, one image at least; enough for several threads to share."""


def measure_ncsnr(scored: xr.Dataset, half: int | None = None) -> xr.DataArray:
    """The ncsnr of z-scored betas, over images with three showings among the trials of *scored*. See ds.nsd."""
    volume = get_betas(scored).transpose(TRIAL, ...).isel({TRIAL: 0}, drop=True)
    variance = measure_noise_variance(scored, half)
    attributes = {"long_name": "noise-ceiling signal-to-noise ratio", "units": "1", "images": variance.images}
    ncsnr = make_ncsnr(variance.finish())
    coords = {name: each for name, each in volume.coords.items() if name != "ncsnr"}
    return xr.DataArray(ncsnr, coords, volume.dims, "ncsnr", attributes)


def measure_noise_variance(scored: xr.Dataset, half: int | None = None) -> NoiseVariance:
    """The noise variance of z-scored betas; *half*: of every second image in the order of 10k ids, from 1 or 2."""
    check_origin(scored)
    betas = get_betas(scored).transpose(TRIAL, ...)
    images = _find_images(scored, half)
    volume = betas.isel({TRIAL: 0}, drop=True)
    variance = NoiseVariance(volume.shape)
    images_at_once = max(1, BLOCK_BYTES // max(1, SHOWINGS * volume.nbytes))
    for first in range(0, len(images), images_at_once):
        block = images[first : first + images_at_once]
        values = betas.isel({TRIAL: block.reshape(-1)}).values
        for repeats in values.reshape(len(block), SHOWINGS, *volume.shape):
            variance.add(repeats)
        del values, repeats  # before the next block is read
    return variance


def _find_images(scored: xr.Dataset, half: int | None) -> np.ndarray:
    """Trials of each image with three showings, int64 (image, 3)."""
    images = find_repeats(get_column(scored, "nsd_id")).of(SHOWINGS)
    if half is None:
        return images
    if half not in (1, 2):
        raise ConfigError(f"half {half!r}, expected 1 or 2", hint="1 is of odd images, 2 of even ones.", found=half)
    order = np.argsort(get_column(scored, "image_10k")[images[:, 0]], kind="stable")
    return images[order][half - 1 :: 2]


# -- how many showings have data ---------------------------------------------------------------------------------


def count_showings(averaged: xr.Dataset) -> xr.DataArray:
    """Showings with data that each mean is made of, int8, (image, ...). Memory: one byte a value."""
    missing = get_missing(averaged)
    values = missing.values.reshape(missing.sizes[SESSION_NUMBER], -1)
    dims = tuple(dim for dim in missing.dims if dim != SESSION_NUMBER)
    shape = tuple(missing.sizes[dim] for dim in dims)
    counts = _count(averaged, values).reshape(averaged.sizes[IMAGE], *shape)
    coords = {name: each for name, each in averaged.coords.items() if set(each.dims) <= {IMAGE, *dims}}
    about = {"long_name": "showings with data that are averaged"}
    return xr.DataArray(counts, coords, (IMAGE, *dims), "showings", about)


def _count(averaged: xr.Dataset, missing: np.ndarray) -> np.ndarray:
    """int8 (image, voxel), of *missing*, bool (session_number, voxel)."""
    sessions = get_column(averaged, SHOWING_SESSION)
    counts = np.zeros((len(sessions), missing.shape[1]), np.int8)
    for showing in sessions.T:
        there = np.flatnonzero(showing > 0)
        counts[there] += ~missing[find_positions(averaged, showing[there])]
    return counts


def average_inverse(averaged: xr.Dataset) -> np.ndarray:
    """Mean over images of 1/n, n the showings with data: float64, flat; NaN where a voxel has none at all.

    Only voxels that lack some sessions are counted image by image, a few at a time.
    """
    missing = get_missing(averaged)
    values = missing.values.reshape(missing.sizes[SESSION_NUMBER], -1)
    result = np.full(values.shape[1], np.mean(1 / averaged["repeats"].values))
    partly = np.flatnonzero(values.any(axis=0))
    step = max(1, BLOCK_BYTES // averaged.sizes[IMAGE])
    for first in range(0, len(partly), step):
        place = partly[first : first + step]
        counts = _count(averaged, values[:, place]).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(counts > 0, 1 / counts, 0).sum(axis=0)
            result[place] = inverse / (counts > 0).sum(axis=0)
    return result


# -- noise ceiling -----------------------------------------------------------------------------------------------


def make_ceiling(dataset: xr.Dataset, n: Any = None) -> xr.DataArray:
    """The noise ceiling by the dataset's ncsnr; *n*: trials averaged, None behind average_repeats. See ds.nsd."""
    check_origin(dataset)
    if "ncsnr" not in dataset:
        raise StoreError(
            "this dataset has no ncsnr", hint="Compute it: ds.assign(ncsnr=ds.nsd.compute_ncsnr()), then again."
        )
    if n is None and "repeats" not in dataset:
        raise ConfigError("how many trials is each response the mean of?", hint="Say noise_ceiling(3), or 1.")
    ncsnr = dataset["ncsnr"]
    if n is None and SHOWING_SESSION in dataset and find_missing_variable(dataset) is not None:
        ceiling = scale_ceiling(ncsnr.values, average_inverse(dataset).reshape(ncsnr.shape))
    else:
        ceiling = make_noise_ceiling(ncsnr.values, dataset["repeats"].values if n is None else n)
    attributes = {"long_name": "noise ceiling", "units": "percent"}
    return xr.DataArray(ceiling, ncsnr.coords, ncsnr.dims, "noise_ceiling", attributes)
