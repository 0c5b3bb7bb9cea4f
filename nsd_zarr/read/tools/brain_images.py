"""Trials and maps as nilearn takes them: images of volumes that read a trial when it is asked for, and of surfaces."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError
from nsd_zarr.read.derive import IMAGE, TRIAL, get_betas
from nsd_zarr.read.tools.samples import check_fits
from nsd_zarr.read.volume import (
    HEMISPHERE,
    IN_HEMISPHERE,
    VOXEL,
    make_image,
    make_nifti,
    make_volume,
    move_affine,
    read_affine,
    read_sides,
)

PARTS = {"lh": "left", "rh": "right"}
"""Hemispheres in the words of nilearn."""


class LazyVolumes:
    """Trials as an array (X, Y, Z, T) that nibabel and nilearn index: reads the trials that are asked for."""

    # Not `is_proxy`: of a proxy nibabel reads a value to see its dtype.
    ndim = 4

    def __init__(self, betas: xr.DataArray) -> None:
        """*betas*: (trial or image, z, y, x), or (..., voxel) of a region of a volume."""
        self._rows = next(dim for dim in (TRIAL, IMAGE) if dim in betas.dims)
        self._betas = betas
        self.volume = make_volume(betas.isel({self._rows: slice(0, 0)}))
        self.shape = (*(self.volume.sizes[axis] for axis in "xyz"), betas.sizes[self._rows])
        self.dtype = betas.dtype

    def _read(self, rows: Any) -> np.ndarray:
        values: np.ndarray = make_volume(self._betas.isel({self._rows: rows})).transpose("x", "y", "z", ...).values
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        check_fits("these trials", int(np.prod(self.shape)) * self.dtype.itemsize)
        return self._read(slice(None)).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        from nibabel.fileslice import canonical_slicers

        places = canonical_slicers(key, self.shape)  # type: ignore[no-untyped-call]
        if len(places) != self.ndim or any(not isinstance(place, (int, np.integer, slice)) for place in places):
            return np.asarray(self)[key]
        return self._read(places[3])[tuple(places[:3])]


def make_images(dataset: xr.Dataset, what: Any, mesh: Any) -> Any:
    """See ds.nsd.to_nilearn."""
    values = what if isinstance(what, xr.DataArray) else _choose(dataset, what)
    if IN_HEMISPHERE in values.coords:
        return _make_surface(values, mesh)
    if mesh is not None:
        raise ConfigError("a mesh for volumes", hint="Leave mesh= out: a volume lies by its affine.")
    affine = read_affine(dataset)
    if any(dim in values.dims for dim in (TRIAL, IMAGE)):
        lazy = LazyVolumes(values)
        return make_image(lazy, move_affine(affine, lazy.volume))
    return make_nifti(make_volume(values), affine)


def _choose(dataset: xr.Dataset, what: int | None) -> xr.DataArray:
    betas = get_betas(dataset)
    return betas if what is None else betas.isel({dim: what for dim in betas.dims if dim in (TRIAL, IMAGE)})


# -- surfaces ----------------------------------------------------------------------------------------------------


def _make_surface(values: xr.DataArray, mesh: Any) -> Any:
    try:
        from nilearn.surface import PolyMesh, SurfaceImage
    except ImportError as error:
        raise ImportError("images of surfaces need nilearn: pip install nilearn") from error
    if mesh is None:
        raise ConfigError(
            "an image of a surface needs its mesh, which no file of betas holds",
            hint='Give a PolyMesh, or mesh={"left": "lh.white", "right": "rh.white"}: files of '
            "nsddata/freesurfer/subjAA/surf.",
        )
    if isinstance(mesh, Mapping):
        mesh = PolyMesh(**{PARTS.get(str(part), str(part)): _as_mesh(each) for part, each in mesh.items()})
    vertices = VOXEL if VOXEL in values.dims else "vertex"
    values = values.transpose(vertices, ...)
    check_fits("these maps", values.nbytes)
    sides, numbers = read_sides(values.coords[HEMISPHERE].variable), values.coords[IN_HEMISPHERE].values
    data = {
        part: _scatter(values.values[sides == side], numbers[sides == side], mesh.parts[part].n_vertices, side)
        for side, part in PARTS.items()
        if part in mesh.parts
    }
    return SurfaceImage(mesh, data)


def _as_mesh(mesh: Any) -> Any:
    return os.fspath(mesh) if isinstance(mesh, os.PathLike) else mesh


def _scatter(values: np.ndarray, numbers: np.ndarray, count: int, side: str) -> np.ndarray:
    """Values of some vertices in an array of all of the mesh: NaN (of integers 0) where none is known."""
    if numbers.size and numbers.max() >= count:
        raise ConfigError(
            f"the {side} mesh has {count:,} vertices, the store one with number {numbers.max():,}",
            hint="Give the mesh of this subject and space.",
            expected=int(numbers.max()) + 1,
            found=count,
        )
    whole = np.full((count, *values.shape[1:]), np.nan if values.dtype.kind == "f" else 0, values.dtype)
    whole[numbers] = values
    return whole
