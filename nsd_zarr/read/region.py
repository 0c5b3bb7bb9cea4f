"""The voxels of a region: a dataset with every volume a list of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError
from nsd_zarr.read.derive import BETAS, get_betas, get_chunks, get_volume_dims
from nsd_zarr.read.lazy import find_lazy, make_lazy, select
from nsd_zarr.read.missing import tell_missing
from nsd_zarr.read.roi import Atlas, find_voxels, make_atlas
from nsd_zarr.read.stored import StoredVariable, check_origin, drop_foreign
from nsd_zarr.read.volume import AFFINE, AXES, HEMISPHERE, VOXEL, make_millimetres, make_place, read_sides


def choose_region(
    dataset: xr.Dataset, names: Sequence[Any], labels: Any, hemisphere: str | None, mask: Any, complete: bool
) -> xr.Dataset:
    """*dataset* at the voxels of a region, by names or by *mask*; see ds.nsd.roi."""
    if (mask is None) == (not names) or (mask is not None and (labels is not None or hemisphere is not None)):
        raise ConfigError("a region is given by names or by a mask", hint='For example roi("nsdgeneral").')
    if mask is not None:
        return _choose_mask(drop_foreign(dataset), mask, complete)
    dims = get_volume_dims(get_betas(dataset))
    atlas = read_atlas(dataset)
    listed = None if labels is None else np.atleast_1d(np.array(labels, object)).tolist()
    regions = atlas.choose(names, listed, hemisphere)
    voxels = find_voxels(atlas.make_mask(regions), tuple(dataset.sizes[dim] for dim in dims))
    named = {name: (VOXEL, values) for name, values in atlas.name_voxels(regions, voxels).items()}
    own = dataset.variables.get(HEMISPHERE)
    if own is not None and own.dims == dims:
        # Of a surface: its own, whatever files of regions say.
        named[HEMISPHERE] = (VOXEL, read_sides(own)[voxels])
    gathered = gather_voxels(dataset, voxels).assign_coords(named)
    return tell_missing(gathered.assign_attrs(roi=_describe(dataset, ", ".join(map(str, regions)))), complete)


def _choose_mask(dataset: xr.Dataset, mask: Any, complete: bool) -> xr.Dataset:
    dims = get_volume_dims(get_betas(dataset))
    chosen = mask.transpose(*dims).values if isinstance(mask, xr.DataArray) else np.asarray(mask)
    voxels = find_voxels(chosen, tuple(dataset.sizes[dim] for dim in dims))
    return tell_missing(gather_voxels(dataset, voxels).assign_attrs(roi=_describe(dataset, "mask")), complete)


def read_atlas(dataset: xr.Dataset) -> Atlas:
    """The regions of *dataset*. Raises ConfigError where they are not those of its trials."""
    check_origin(dataset)
    dims = get_volume_dims(get_betas(dataset))
    attributes = {str(name): each.attrs for name, each in dataset.variables.items()}
    return make_atlas(attributes, lambda name: read_labels(dataset[name], dims))


def read_labels(volume: xr.DataArray, dims: Sequence[Any]) -> np.ndarray:
    """Label codes, axes *dims* last. Raises ConfigError for numbers that are no labels."""
    if volume.dtype.kind not in "iub":
        raise ConfigError(
            f"{volume.name} is {volume.dtype}, expected whole numbers: a step such as coarsen, interp or reindex "
            "computed numbers between its labels",
            hint="Take the region first, roi(...), or give the mask of your own: roi(mask=...).",
            found=str(volume.dtype),
        )
    codes: np.ndarray = volume.transpose(..., *dims).values
    return codes


def _describe(dataset: xr.Dataset, request: str) -> str:
    """The request, and those before it."""
    before = dataset.attrs.get("roi")
    return f"{request} of {before}" if before else request


def gather_voxels(dataset: xr.Dataset, voxels: np.ndarray) -> xr.Dataset:
    """Every variable of *dataset* at some voxels: *voxels*, flat C-order indices in one of its trials, as it is now."""
    dims = get_volume_dims(get_betas(dataset))
    sizes = [dataset.sizes[dim] for dim in dims]
    places = dict(zip(dims, np.unravel_index(voxels, sizes), strict=True))
    points = {dim: xr.Variable((VOXEL,), place) for dim, place in places.items()}
    volumes = {
        name: _gather_variable(each, dims, voxels, points)
        for name, each in dataset.variables.items()
        if name not in dataset.indexes and dims == each.dims[each.ndim - len(dims) :]
    }
    coords = {name: each for name, each in volumes.items() if name in dataset.coords}
    gathered = dataset.drop_vars(list(volumes)).isel(points, missing_dims="ignore").assign_coords(coords)
    gathered = gathered.assign({name: each for name, each in volumes.items() if name not in coords})
    lost = {dim: place for dim, place in places.items() if dim != VOXEL and dim not in gathered.coords}
    gathered = gathered.assign_coords(
        {dim: make_place(str(dim), place, dataset.sizes[dim], VOXEL) for dim, place in lost.items()}
    )
    if AFFINE in dataset and set(dims) == set(AXES):
        at = {axis: gathered.coords[axis].values for axis in AXES}
        gathered = gathered.assign_coords(make_millimetres(dataset[AFFINE].values, at))
    # Betas that were transposed have their trials behind the voxels: back to (trial, voxel).
    return gathered.assign({BETAS: gathered[BETAS].variable.transpose(..., VOXEL)})


def _gather_variable(variable: xr.Variable, dims: tuple[Any, ...], voxels: np.ndarray, points: Any) -> xr.Variable:
    found = find_lazy(variable)
    if found is None:
        return variable.isel(points)
    array, key = found
    lead, own = key[: len(key) - array.volume_axes], key[len(key) - array.volume_axes :]
    inside = array.shape[len(array.shape) - array.volume_axes :]
    flat = select(np.arange(int(np.prod(inside))).reshape(inside), own).reshape(-1)[voxels]
    made = array.gather(flat)
    encoding = {"preferred_chunks": {dim: size for dim, size in get_chunks(variable).items() if dim not in dims}}
    lazy = make_lazy(made, (*lead, slice(None)))
    return StoredVariable((*variable.dims[: variable.ndim - len(dims)], VOXEL), lazy, variable.attrs, encoding)
