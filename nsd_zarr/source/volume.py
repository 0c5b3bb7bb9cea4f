"""One NIfTI volume beside the betas: its values in the order of the betas, and where its voxels lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.source.bounded import decompress, read_head

AFFINE_TOLERANCE = 1e-3
"""Millimetres a voxel by which two affines may differ before they count as turned, mirrored or of another voxel size:
above what float32 headers round, below any real difference."""

MAX_VOXELS = 2**24
"""Of a volume beside the betas: twice those of the MNI space, the dataset's largest."""
HEADER_BYTES = 348
"""Of a NIfTI-1 header. Source: the NIfTI-1 standard."""
ROOM_BYTES = 2**20
"""For extensions of a header, and again for padding behind the voxels."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as read."""

    path: Path
    """The file."""
    values: np.ndarray
    """Shape (z, y, x): NIfTI's (x, y, z) transposed, as h5py shows the betas."""
    affine: np.ndarray
    """RAS+ millimetres from voxel indices (x, y, z, 1), float64 of shape (4, 4)."""


def parse_volume(data: bytes, path: Path) -> Volume:
    """The volume in the bytes of a NIfTI file, gzip or not. Raises SourceError, naming *path*, where they hold none.

    Integers stay integers, floats floats; what the header scales is scaled. Refused unread: more than MAX_VOXELS.
    """
    from nibabel.nifti1 import Nifti1Image

    try:
        image: Any = Nifti1Image.from_bytes(decompress(data, _count_bytes(data)))
        values, affine = np.asarray(image.dataobj), np.array(image.affine, np.float64)
    except Exception as error:  # Whatever the libraries make of bytes that are something else.
        raise SourceError(f"no NIfTI volume can be read from it: {error}", hint="Fetch it again.", path=path) from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or values.dtype.kind not in "iuf":
        raise SourceError(
            f"{values.dtype} of shape {values.shape}, expected numbers of shape (x, y, z)",
            hint="Give a volume of one value a voxel.",
            path=path,
        )
    values = np.ascontiguousarray(values.transpose(2, 1, 0))
    return Volume(path, values.astype(values.dtype.newbyteorder("="), copy=False), affine)


def _count_bytes(data: bytes) -> int:
    """Bytes that a NIfTI file has by its own header, and room for extensions and padding. Raises ValueError."""
    from nibabel.nifti1 import Nifti1Header

    header: Any = Nifti1Header(read_head(data, HEADER_BYTES), check=False)  # type: ignore[no-untyped-call]
    shape, offset = header.get_data_shape(), float(header["vox_offset"])
    voxels = math.prod(int(length) for length in shape)
    if not 0 <= voxels <= MAX_VOXELS or not 0 <= offset <= ROOM_BYTES:
        raise ValueError(f"its header says shape {shape} from byte {offset:g} on")
    return voxels * int(header.get_data_dtype().itemsize) + 2 * ROOM_BYTES


def check_shape(volume: Volume, expected: tuple[int, ...]) -> None:
    """Refuse a volume whose voxels are not those of the betas, shape *expected* (z, y, x). Raises SourceError."""
    if volume.values.shape != expected:
        raise SourceError(
            f"a volume of shape {volume.values.shape} (z, y, x), expected {expected} as the betas have it",
            hint="Give the volume of the same subject and space, or leave it out.",
            path=volume.path,
            expected=expected,
            found=volume.values.shape,
        )


def compare_affines(volume: Volume, reference: Volume) -> str:
    """What differs between where two volumes lie, in words; empty when nothing does.

    Voxels belong to the betas by their place in the array. So an origin that differs is reported and no more, because
    tools write it in several ways; voxels of another size, turned or mirrored, cannot be the same: SourceError.
    """
    difference = np.abs(volume.affine - reference.affine)
    if difference[:3, :3].max() > AFFINE_TOLERANCE:
        raise SourceError(
            f"affine {format_affine(volume.affine)}, expected {format_affine(reference.affine)} as in "
            f"{reference.path.name}: its voxels are turned, mirrored or of another size",
            hint="Give the volume of the same space, or leave it out.",
            path=volume.path,
            expected=reference.affine.tolist(),
            found=volume.affine.tolist(),
        )
    shift = float(difference[:3, 3].max())
    if shift <= AFFINE_TOLERANCE:
        return ""
    return f"the origin of {volume.path.name} differs from that of {reference.path.name} by up to {shift:.4g} mm"


def format_affine(affine: np.ndarray) -> str:
    """The three rows of an affine that matter, on one line."""
    return "; ".join(" ".join(f"{value:.4g}" for value in row) for row in affine[:3])


def make_mask(volume: Volume) -> np.ndarray:
    """The volume as bool. Raises SourceError when it holds anything but 0 and 1."""
    odd = volume.values[(volume.values != 0) & (volume.values != 1)]
    if odd.size:
        raise SourceError(
            f"a mask that holds {odd[0]}, expected 0 and 1 alone",
            hint="Give the dataset's own volume, or leave it out.",
            path=volume.path,
            expected=(0, 1),
            found=float(odd[0]),
        )
    return np.asarray(volume.values, bool)


def make_label_volume(volume: Volume) -> np.ndarray:
    """The volume as int16. Raises SourceError when it holds anything but whole numbers of that range."""
    limits, values = np.iinfo(np.int16), volume.values
    with np.errstate(invalid="ignore"):
        whole = (values == np.rint(values)) & (values >= limits.min) & (values <= limits.max)
    if not whole.all():
        raise SourceError(
            f"a region volume that holds {values[~whole][0]}, expected whole numbers: -1 not cortex, 0 cortex without "
            "a label, 1 and up the labels",
            hint="Give the dataset's own volume, or leave it out.",
            path=volume.path,
            found=float(values[~whole][0]),
        )
    return values.astype(np.int16)
