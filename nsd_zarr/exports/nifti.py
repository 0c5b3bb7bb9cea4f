"""Samples as 4-D NIfTI, a session a file: trial after trial through one gzip stream."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.exports.choice import Part
from nsd_zarr.places.durable import DurableFile
from nsd_zarr.read.volume import AXES, make_image, make_volume, read_affine

GZIP_LEVEL = 1
"""Betas hardly compress: levels above take several times as long for a few percent."""
HEADER_BYTES = 352
"""Of a NIfTI-1 file without extensions: data begin there. Source: nifti1.h."""


class NiftiWriter:
    """Writes one `.nii.gz`, axes (X, Y, Z, T), 0 outside of the region. Kept whole: gzip is one stream."""

    def __init__(self, folder: Path, part: Part) -> None:
        self.part = part
        self._path = folder / part.name
        self._affine = read_affine(part.dataset)
        whole = make_volume(part.betas[:0])
        self._shape = tuple(whole.sizes[axis] for axis in AXES)
        self._file: DurableFile | None = None
        self._stream: gzip.GzipFile | None = None

    def start(self, done: int) -> int:
        """See Writer."""
        if done == self.part.rows and self._path.is_file():
            return done
        self._file = DurableFile(self._path)
        file: Any = self._file  # it can write, which is all that gzip asks for
        self._stream = gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0)
        self._stream.write(self._make_head())
        return 0

    def _make_head(self) -> bytes:
        """The header of the dataset's own files, of this dtype; four bytes behind it say that no extension follows."""
        shape = (*reversed(self._shape), self.part.rows)
        header = make_image(np.broadcast_to(np.zeros((), self.part.betas.dtype), shape), self._affine).header.structarr
        header["magic"], header["vox_offset"], header["scl_slope"], header["scl_inter"] = b"n+1", HEADER_BYTES, 0, 0
        return bytes(header.tobytes()).ljust(HEADER_BYTES, b"\0")

    def write(self, first: int, values: np.ndarray) -> None:
        """See Writer."""
        assert self._stream is not None
        for row in values:
            self._stream.write(np.ascontiguousarray(self._place(row)).data.cast("B"))

    def _place(self, row: np.ndarray) -> np.ndarray:
        """One sample in its volume, C order (z, y, x): as NIfTI lays out (X, Y, Z)."""
        if row.ndim == len(AXES):
            return row
        volume: np.ndarray = np.zeros(self._shape, row.dtype)
        volume[tuple(self.part.betas.coords[axis].values for axis in AXES)] = row
        return volume

    def keep(self) -> bool:
        """See Writer."""
        return False

    def finish(self) -> None:
        """See Writer."""
        if self._file is not None and self._stream is not None:
            self._stream.close()
            self._file.commit()
            self._file = None

    def close(self) -> None:
        """See Writer."""
        if self._file is not None:
            self._file.discard()
