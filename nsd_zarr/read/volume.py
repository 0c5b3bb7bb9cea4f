"""Where voxels lie: from voxel lists back to volumes, and from volumes to NIfTI.

Millimetres are those of the dataset's own files: 0 is the middle of the slab, and they are neither scanner nor
anatomical coordinates. Source: nsd_savenifti.m; data manual, "Spaces for imaging data".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError, StoreError
from nsd_zarr.libraries import check_library
from nsd_zarr.read.stored import check_origin

AFFINE = "affine"
"""Array of the store: from NIfTI voxel indices (x, y, z, 1) to RAS+ millimetres."""
AXES = ("z", "y", "x")
"""Axes of a volume, C order."""
VOXEL = "voxel"
"""Axis of a list of voxels."""
HEMISPHERE, IN_HEMISPHERE = "hemisphere", "vertex_in_hemisphere"
"""Coordinates of the vertices of a surface: of which side each is, and its number there, from 0."""
MILLIMETRES = {"right_mm": 0, "anterior_mm": 1, "superior_mm": 2}
"""Coordinates of a voxel in the file's own millimetres: RAS+."""


def make_place(dim: str, indices: np.ndarray, size: int, along: str | None = None) -> xr.Variable:
    """Voxel indices along axis *dim*, which has *size* voxels in the store, as a coordinate along *along*."""
    attributes = {"long_name": f"voxel index along {dim}, counted from 0", "axis_length": size}
    return xr.Variable((along or dim,), indices, attributes)


def make_millimetres(affine: np.ndarray, places: dict[str, np.ndarray]) -> dict[str, xr.Variable]:
    """Millimetres of the voxels at *places* (indices by axis), float64 of shape (voxel,), by name."""
    positions = affine[:3, :3] @ np.stack([places[axis] for axis in "xyz"]) + affine[:3, 3:]
    return {
        name: xr.Variable((VOXEL,), positions[row], {"units": "mm", "long_name": f"towards {name.removesuffix('_mm')}"})
        for name, row in MILLIMETRES.items()
    }


def make_volume(values: xr.DataArray) -> xr.DataArray:
    """Values of a list of voxels put back into their volume, shape (..., z, y, x); volumes pass through.

    Outside of the list: NaN; in integers and booleans, which have none, 0. Raises ConfigError when the voxels have
    lost their coordinates.
    """
    if VOXEL not in values.dims:
        return values
    dims = [dim for dim in (*AXES, "vertex") if dim in values.coords and "axis_length" in values.coords[dim].attrs]
    if not dims:
        raise ConfigError(
            "these voxels have no coordinates z, y, x, so nobody knows where they lie",
            hint="Keep the coordinates that ds.nsd.roi gave them.",
        )
    values = values.transpose(..., VOXEL)
    shape = tuple(values.coords[dim].attrs["axis_length"] for dim in dims)
    fill: Any = np.nan if values.dtype.kind == "f" else 0
    volume = np.full((*values.shape[:-1], *shape), fill, values.dtype)
    volume[(..., *(values.coords[dim].values for dim in dims))] = values.values
    coords = {name: each for name, each in values.coords.items() if VOXEL not in each.dims}
    coords |= {dim: make_place(str(dim), np.arange(size), size) for dim, size in zip(dims, shape, strict=True)}
    return xr.DataArray(volume, coords, (*values.dims[:-1], *dims), values.name, values.attrs)


def make_nifti(volume: xr.DataArray, affine: np.ndarray) -> Any:
    """A nibabel image (X, Y, Z), or (X, Y, Z, T) with one more axis, of *volume*; *affine* is the store's.

    A part of a volume, cut out evenly, lands in its place by its coordinates z, y, x. Booleans become uint8, wide
    integers int32. Raises ConfigError for other axes.
    """
    check_library("nibabel", "ds.nsd.to_nifti")
    rest = [dim for dim in volume.dims if dim not in AXES]
    if len(rest) > 1 or volume.ndim - len(rest) != len(AXES):
        raise ConfigError(
            f"an array with dimensions {volume.dims}, expected z, y, x and at most one more",
            hint="Give one trial, or one volume.",
        )
    values = volume.transpose("x", "y", "z", *rest).values
    narrow = {"b": np.uint8, "i": np.int32, "u": np.int32}.get(values.dtype.kind, values.dtype)
    if values.dtype.kind == "b" or values.dtype.itemsize > np.dtype(narrow).itemsize:
        values = values.astype(narrow)
    return make_image(values, move_affine(affine, volume))


def make_image(values: Any, affine: np.ndarray) -> Any:
    """A nibabel image of *values*, (X, Y, Z[, T]), with the codes of the dataset's own files."""
    import nibabel

    image = nibabel.nifti1.Nifti1Image(values, affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    image.set_sform(image.affine, 1)  # type: ignore[no-untyped-call]
    image.set_qform(None, 0)  # type: ignore[no-untyped-call]
    return image


def move_affine(affine: np.ndarray, volume: xr.DataArray) -> np.ndarray:
    """The affine of a part of a volume: its first voxel and its step along each axis."""
    moved = affine.copy()
    for column, axis in enumerate("xyz"):
        places = volume.coords[axis].values if axis in volume.coords else np.arange(volume.sizes[axis])
        steps = np.unique(np.diff(places))
        if len(steps) > 1:
            raise ConfigError(f"the voxels along {axis} are not evenly cut out", hint="Give a box of the volume.")
        moved[:3, 3] += affine[:3, column] * places[0]
        moved[:3, column] *= steps[0] if steps.size else 1
    return moved


def read_affine(dataset: xr.Dataset) -> np.ndarray:
    """The affine of *dataset*, float64 of shape (4, 4). Raises StoreError without one; ConfigError for another's."""
    check_origin(dataset)
    if AFFINE not in dataset:
        raise StoreError(
            "the store has no affine, so the place of its voxels in millimetres is unknown",
            hint="Convert from an NSD root folder, whose brainmask has it.",
        )
    affine: np.ndarray = dataset[AFFINE].values.astype(np.float64)
    return affine


def read_sides(known: xr.Variable) -> np.ndarray:
    """The side of each vertex, "lh" or "rh", of coordinate `hemisphere`: text, or codes with flag_meanings."""
    codes: np.ndarray = known.values
    if codes.dtype.kind in "OUST":
        return codes.astype(str)
    words = str(known.attrs.get("flag_meanings", "lh rh")).split()
    numbers = np.atleast_1d(known.attrs.get("flag_values", np.arange(len(words)))).tolist()
    by_code = dict(zip(numbers, words, strict=True))
    return np.array([by_code.get(code, "") for code in codes.tolist()])
