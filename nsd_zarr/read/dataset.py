"""Opening a store as an xarray Dataset."""

from __future__ import annotations

import os
from typing import Any

import xarray as xr

from nsd_zarr.read.backend import NsdZarrBackendEntrypoint


def open_dataset(path: str | os.PathLike[str], *, raw: bool = False, **options: Any) -> xr.Dataset:
    """Open the store at *path*, lazily: reads its root document and the session numbers, no trial.

    `ds.betas`: percent signal change, float32, dims (trial, z, y, x), or (trial, vertex) for surfaces; bit-equal to
    np.float32(counts) / np.float32(300). Float sources stay what they are. Only trials that are asked for are read,
    each once. Coordinates along `trial`: `session` (counted from 1) and `trial_in_session` (from 0); select by them
    with `ds.sel(trial=ds.session == 3)` (under Dask `(ds.session == 3).compute()`) or
    `ds.set_xindex("session").sel(session=3)`.

    *raw*: the stored counts, in the stored dtype, instead (xarray's `mask_and_scale=False`).

    *options*: as xarray.open_dataset takes them, such as `chunks={}` for Dask (a chunk is a shard); and
    `allow_unfinished=True` to look into a store whose conversion has not finished (what is not there yet raises when
    it is read).

    Raises StoreError: missing, something else, unfinished; DamageFound when the root document is damaged, or later,
    naming trial and shard, when a trial that is read is lost or damaged. Source: data manual, "Functional data (NSD)".

    >>> ds = nsd_zarr.open_dataset("subj01.zarr")
    >>> ds.betas.dims
    ('trial', 'z', 'y', 'x')
    >>> third = ds.sel(trial=ds.session == 3)
    >>> third.betas[0].values.dtype
    dtype('float32')
    """
    if raw:
        options["mask_and_scale"] = False
    # By class: by name, xarray would import every engine that is installed first.
    return xr.open_dataset(path, engine=NsdZarrBackendEntrypoint, **options)
