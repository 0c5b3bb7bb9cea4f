"""Which voxels have no data in a session: one rule, for everything that averages, scores or trains."""

from __future__ import annotations

from typing import Any


def find_missing(std: Any, valid: Any = None) -> Any:
    """Where there are no data, bool, of the shape of *std*: arrays, xarray variables and Dask arrays alike.

    *std*: standard deviation of each voxel over **all** trials of a session. *valid*: whether the dataset's authors
    call it valid in that session. A voxel has no data in a session when it does not vary there (std 0), is NaN in any
    trial (std NaN), or is not valid; one is enough. The only place of this rule. Outside the brain mask it holds for
    every voxel. Source: data manual, "Functional data (NSD)": invalid voxels are 0 in all trials of a session; the
    authors' calczscore.m makes a voxel NaN where its standard deviation is 0.

    >>> import numpy as np
    >>> find_missing(np.array([2.0, 0.0, np.nan, 1.0]), np.array([True, True, True, False]))
    array([False,  True,  True,  True])
    """
    missing = ~(std > 0)
    return missing if valid is None else missing | ~valid.astype(bool)
