"""A dataset as rsatoolbox's Dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.read.derive import get_betas
from nsd_zarr.read.stored import STORE
from nsd_zarr.read.tools.samples import choose_voxels, find_row_dim, read_matrix
from nsd_zarr.read.volume import VOXEL

DESCRIPTORS = ("subject", "space", "betas", "roi")
"""Attributes of a dataset that describe all of its samples."""


def make_rsa_dataset(dataset: xr.Dataset, roi: Any, missing: str) -> Any:
    """See ds.nsd.to_rsatoolbox."""
    try:
        from rsatoolbox.data import Dataset
    except ImportError as error:
        raise ImportError("ds.nsd.to_rsatoolbox needs rsatoolbox: pip install rsatoolbox") from error
    region = choose_voxels(dataset, roi, None, None, missing)
    about = get_betas(region).attrs
    described = {name: region.attrs[name] for name in DESCRIPTORS if name in region.attrs}
    return Dataset(
        measurements=read_matrix(region, missing),
        descriptors=described | {name: about[name] for name in ("units", "zscore") if name in about},
        obs_descriptors=_list_columns(region, find_row_dim(region)),
        channel_descriptors=_list_columns(region, VOXEL),
    )


def _list_columns(dataset: xr.Dataset, dim: str) -> dict[str, np.ndarray]:
    """Every coordinate along *dim* alone."""
    found = {str(name): each for name, each in dataset.coords.items() if each.dims == (dim,) and name != STORE}
    return {name: each.values for name, each in found.items()}
