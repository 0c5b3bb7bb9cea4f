"""What the header of a NIfTI file says of the trials of a session, and whether they can be taken as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.layout import MAX_TRIALS, SessionNumber
from nsd_zarr.source.forms.content import HEAD_BYTES, NIFTI, find_content
from nsd_zarr.source.session import MAX_TRIAL_BYTES

MAX_OFFSET = 2**20
"""Of the first value: room for extensions of the header."""
Affine = tuple[tuple[float, ...], ...]
"""Four rows of four: RAS+ millimetres from NIfTI voxel indices (x, y, z, 1), counted from 0."""


@dataclass(frozen=True, slots=True)
class NiftiHeader:
    """What matters of a header."""

    shape: tuple[int, ...]
    """(trial, z, y, x)."""
    offset: int
    """Byte of the first value, in the unpacked file."""
    affine: Affine
    """Where voxels lie."""

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file, unpacked."""
        return self.offset + 2 * math.prod(self.shape)


def parse_header(head: bytes, path: Path, session: SessionNumber | None) -> NiftiHeader:
    """The header in the first bytes of a file, unpacked. Raises SourceError where its trials are not int16 as stored.

    Source: the NIfTI-1 standard; of what the dataset writes nsd_savenifti.m.
    """
    from nibabel.nifti1 import Nifti1Header

    def refuse(problem: str, hint: str = "Fetch it again, or leave it out with --sessions.") -> SourceError:
        return SourceError(f"NIfTI file: {problem}", hint=hint, path=path, session=session)

    if len(head) < HEAD_BYTES or find_content(head) != NIFTI:
        raise refuse("its first bytes are not a NIfTI-1 header")
    header: Any = Nifti1Header(head[:348], check=False)  # type: ignore[no-untyped-call]
    lengths = [int(length) for length in header["dim"]]
    shape = tuple(reversed(lengths[1:5]))
    if not (4 <= lengths[0] <= 7 and set(lengths[5 : lengths[0] + 1]) <= {1}):
        raise refuse(f"{lengths[0]} dimensions, expected 4: x, y, z and trials", "Give betas_sessionBB.nii.gz.")
    if min(shape) < 1 or shape[0] > MAX_TRIALS or 2 * math.prod(shape[1:]) > MAX_TRIAL_BYTES:
        raise refuse(f"shape {shape} (trial, z, y, x)")
    if int(header["datatype"]) != 4 or header.endianness != "<":
        raise refuse(
            f"values are {_name_dtype(header)}, expected little-endian int16, counts of percent signal change",
            "Give the dataset's own file; another one stores other numbers.",
        )
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # 0, and what is no number, mean: as stored.
    if any(math.isfinite(value) and value not in usual for value, usual in ((slope, (0, 1)), (intercept, (0,)))):
        raise refuse(
            f"slope {slope:g} and intercept {intercept:g}, expected 0 or 1 and 0: its values are not the counts",
            "Give the dataset's own file; another one stores other numbers.",
        )
    offset = float(header["vox_offset"])
    if not (HEAD_BYTES <= offset <= MAX_OFFSET and offset == int(offset)):
        raise refuse(f"its values begin at byte {offset:g}, expected {HEAD_BYTES}")
    return NiftiHeader(shape, int(offset), _read_affine(header))


def _name_dtype(header: Any) -> str:
    try:
        dtype = np.dtype(header.get_data_dtype())
    except Exception:  # A code that nibabel does not know.
        return f"of data type {int(header['datatype'])}"
    return f"{'big-endian ' if header.endianness == '>' else ''}{dtype.name}"


def _read_affine(header: Any) -> Affine:
    affine = np.asarray(header.get_best_affine(), np.float64)
    return tuple(tuple(float(value) for value in row) for row in affine)
