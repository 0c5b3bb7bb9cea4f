"""NIfTI volumes: written from (z, y, x) arrays, byte for byte the same every time."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_nifti(path: Path, volume: NDArray[np.generic], voxel_mm: float, seconds: float = 0) -> None:
    """Write *volume* of shape (z, y, x) as NIfTI of shape (x, y, z), RAS+, with voxels of *voxel_mm* mm.

    The header has the dataset's own form: sform code 1, which puts the centre of the slab at 0; no qform; no units.
    *seconds*: the time from one fMRI volume to the next, which the dataset writes into all volumes but regions. No
    name and no time enter the gzip header. Source: nsdcode nsd_savenifti.m, knkutils settr_nii.m.
    """
    import nibabel

    image: Any = nibabel.nifti1.Nifti1Image(  # type: ignore[no-untyped-call]
        volume.transpose(2, 1, 0), make_affine(volume.shape, voxel_mm)
    )
    image.set_sform(make_affine(volume.shape, voxel_mm), 1)
    image.set_qform(None, 0)
    image.header["pixdim"][0], image.header["pixdim"][4] = 0, seconds
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write(image.to_bytes())


def make_affine(volume_shape: tuple[int, ...], voxel_mm: float) -> NDArray[np.float64]:
    """Voxel (x, y, z) to mm, RAS+: left to right, posterior to anterior, inferior to superior; shape (4, 4)."""
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = [-voxel_mm * (length - 1) / 2 for length in reversed(volume_shape)]
    return affine
