"""NIfTI volumes: written from (z, y, x) arrays, byte for byte the same every time."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 352
"""Before the values: the header of NIfTI-1 and four zeros, which say that no extension follows."""


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


def make_session_header(shape: tuple[int, ...], voxel_mm: float, seconds: float) -> bytes:
    """Everything before the values of a session of *shape* (trials, z, y, x), int16, in the dataset's own form.

    Slope and intercept are 0, which means: as stored. Source: nsdcode nsd_savenifti.m, NIfTI toolbox make_nii.m.
    """
    from nibabel.nifti1 import Nifti1Header

    header: Any = Nifti1Header(endianness="<")  # type: ignore[no-untyped-call]
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape[::-1])
    header.set_zooms((voxel_mm, voxel_mm, voxel_mm, seconds))
    header.set_sform(make_affine(shape[1:], voxel_mm), 1)
    header["pixdim"][0], header["scl_slope"], header["scl_inter"] = 0, 0, 0
    header["vox_offset"], header["magic"] = HEADER_BYTES, b"n+1"
    return bytes(header.binaryblock).ljust(HEADER_BYTES, b"\0")


def make_affine(volume_shape: tuple[int, ...], voxel_mm: float) -> NDArray[np.float64]:
    """Voxel (x, y, z) to mm, RAS+: left to right, posterior to anterior, inferior to superior; shape (4, 4)."""
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = [-voxel_mm * (length - 1) / 2 for length in reversed(volume_shape)]
    return affine
